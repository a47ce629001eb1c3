// SPDX-License-Identifier: Apache-2.0

// Command medirecord is MediRecord: the API, its sidecar, its worker, the
// development server and the operator's commands, in one binary.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/medirecord/medirecord/internal/app"
	"github.com/medirecord/medirecord/internal/med"
)

// Exit codes.
const (
	exitDone     = 0
	exitFailed   = 1
	exitUsage    = 2
	exitTampered = 3
)

type cli struct {
	Dev      devCmd      `cmd:"" help:"Run everything on this machine: PostgreSQL, sidecar, worker, API, sample patients."`
	Serve    serveCmd    `cmd:"" help:"Run the API."`
	Sidecar  sidecarCmd  `cmd:"" help:"Run the sidecar: tokens, policy, signed contexts."`
	Worker   workerCmd   `cmd:"" help:"Run unattended work."`
	Witness  witnessCmd  `cmd:"" help:"Run a witness of logs: it cosigns what extends what it cosigned before."`
	Migrate  migrateCmd  `cmd:"" help:"Bring both databases to this program's schema."`
	Practice practiceCmd `cmd:"" help:"Add and list practices."`
	Import   importCmd   `cmd:"" help:"Import FHIR R4 bundles and bulk NDJSON folders."`
	Audit    auditCmd    `cmd:"" help:"Export and verify the audit trail."`
	Token    tokenCmd    `cmd:"" help:"Print a token of a development server."`
	Policy   policyCmd   `cmd:"" help:"Try a policy file."`
	Config   configCmd   `cmd:"" help:"Show the configuration."`
	Version  versionCmd  `cmd:"" help:"Print the version."`
}

// env is what a command runs with.
type env struct {
	ctx      context.Context //nolint:containedctx // one per process, handed on at once
	out, err io.Writer
	environ  []string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(&env{ctx: ctx, out: os.Stdout, err: os.Stderr, environ: os.Environ()}, os.Args[1:])
	stop()
	os.Exit(code)
}

func run(e *env, args []string) int {
	var c cli
	exit := -1
	parser, err := kong.New(&c, kong.Name("medirecord"), kong.Writers(e.out, e.err), kong.Exit(func(code int) { exit = code }),
		kong.Description("A HIPAA-ready patient-record system that fails closed.\n\n"+
			"Examples:\n"+
			"  medirecord dev\n"+
			"  medirecord token --role nurse --practice practice-north\n"+
			"  medirecord import --practice practice-north bundles/\n"+
			"  medirecord serve"),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true}), kong.Vars{"dev_data": app.DefaultDataDir()})
	if err != nil {
		return fail(e, err)
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	parsed, err := parser.Parse(args)
	if exit >= 0 { // --help has printed
		return exit
	}
	if err != nil {
		var pe *kong.ParseError
		if errors.As(err, &pe) {
			_ = pe.Context.PrintUsage(true)
		}
		fmt.Fprintf(e.err, "medirecord: %v\n", err)
		return exitUsage
	}
	if err := parsed.Run(e); err != nil {
		return fail(e, err)
	}
	return exitDone
}

// usage is an error of the call and not of the work.
type usage struct{ error }

// errReported is a failure that has been reported already.
var errReported = errors.New("reported")

// errTampered says that a verification found tampering, and has told of it.
var errTampered = errors.New("tampered")

func fail(e *env, err error) int {
	var u usage
	switch {
	case errors.Is(err, errTampered):
		return exitTampered
	case errors.Is(err, errReported):
		return exitFailed
	case errors.As(err, &u):
		fmt.Fprintf(e.err, "medirecord: %v\n", u.error)
		return exitUsage
	}
	var known *med.Error
	if errors.As(err, &known) {
		detail := known.Detail
		if detail == "" {
			detail = known.Kind.Detail
		}
		fmt.Fprintf(e.err, "medirecord: %s (%v)\n", strings.TrimSuffix(detail, "."), err)
		return exitFailed
	}
	fmt.Fprintf(e.err, "medirecord: %v\n", err)
	return exitFailed
}

// config reads the environment and the file, or, given the folder of a
// development server, what that server's operator uses.
func (e *env) config(dir, service string) (*app.Config, error) {
	if dir != "" {
		return app.DevConfig(dir, service)
	}
	c, err := app.LoadConfig(e.environ)
	if err != nil {
		return nil, usage{err}
	}
	return c, nil
}
