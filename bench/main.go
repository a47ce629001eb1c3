// SPDX-License-Identifier: Apache-2.0

// Command bench measures MediRecord: named benchmarks, each of which runs
// alone, on servers of its own that it starts and stops. It prints ratios to
// what PostgreSQL does on the same machine in the same run, because absolute
// figures do not carry over from one machine to another.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// benchmark is one named measurement.
type benchmark struct {
	name string
	what string // in one line
	run  func(ctx context.Context, b *bench, r *result) error
}

var all = []benchmark{
	{"audited-reads", "GET /patients/{id} over HTTP against pgbench on the same PostgreSQL", auditedReads},
	{"import", "medirecord import of ../shared/data/dev, twice", importing},
	{"crud", "300 users create, read, update and delete patients and records, with few and many patients", crud},
	{"strict", "GET /patients/{id} with MEDIRECORD_STRICT_READS against the same without", strictReads},
	{"read-patient", "the door in this process: gate, row security, decryption, durable entry", readPatient},
	{"append-audit", "trail.Append: 32 callers sharing commits against a commit for each entry", appendAudit},
	{"trail_reading", "a patient's last 100 accesses and a user's day, at a tenth of -entries and at all", trailReading},
	{"sealing", "the sealer: entries a second, and from commit to signed head at 2,000 a second", sealing},
	{"verify", "audit verify: every entry of an export, and of the database it came from, hashed anew", verifying},
	{"decide", "one policy decision, one token verified, one context signed and verified", decide},
}

// bench is what a benchmark runs with.
type bench struct {
	options
	machine machine
	dir     string // its own, removed at the end
	servers int    // started so far
	say     func(format string, a ...any)
}

type options struct {
	conns, rounds int
	seconds       int
	sample        int
	entries       int
	users         int
	patients      sizes
	data          string
	binary        string
	profile       bool
	keep          bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(0)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out, progress io.Writer) error {
	o := options{patients: sizes{10_000, 100_000}}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(progress)
	name := flags.String("run", "", "benchmark to run, or all; without it they are listed")
	asJSON := flags.Bool("json", false, "print one line of JSON for each benchmark")
	write := flags.Bool("write", false, "rewrite the benchmark's part of bench/RESULTS.md")
	flags.IntVar(&o.conns, "conns", 64, "connections, of the load generator and of pgbench alike")
	flags.IntVar(&o.rounds, "rounds", 3, "rounds; what is compared is interleaved in each")
	flags.IntVar(&o.seconds, "seconds", 8, "how long each measurement lasts")
	flags.IntVar(&o.sample, "sample", 1000, "sample patients of audited-reads and read-patient")
	flags.IntVar(&o.entries, "entries", 10_000_000, "entries of trail_reading")
	flags.IntVar(&o.users, "users", 300, "virtual users of crud")
	flags.Var(&o.patients, "patients", "how many `patients` are in the database when crud measures, one after the other")
	flags.StringVar(&o.data, "data", "../shared/data/dev", "what import imports")
	flags.StringVar(&o.binary, "binary", "", "measure this medirecord instead of building one")
	flags.BoolVar(&o.profile, "profile", false, "audited-reads: one round more under perf, to say where the time goes")
	flags.BoolVar(&o.keep, "keep", false, "keep the data folder and the logs")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("what is %q? Benchmarks are named with -run", flags.Arg(0))
	}
	if o.conns < 1 || o.conns > maxConns || o.rounds < 1 || o.rounds > 100 || o.seconds < 1 || o.seconds > 3600 || o.sample < 2 || o.sample > 100_000 {
		return fmt.Errorf("-conns must be 1 to %d, -rounds 1 to 100, -seconds 1 to 3600, -sample 2 to 100000", maxConns)
	}
	if o.users < 1 || o.users > 10_000 {
		return errors.New("-users must be 1 to 10000")
	}
	if o.entries < 1000 || o.entries > 100_000_000 {
		return errEntries
	}
	if *name == "" {
		return list(out)
	}
	chosen, err := choose(*name)
	if err != nil {
		return err
	}
	for _, c := range chosen {
		r, err := measure(ctx, c, o, progress)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		r.Command = "go run ./bench " + strings.Join(args, " ")
		if err := report(out, r, *asJSON); err != nil {
			return err
		}
		if *write {
			if err := publish(r); err != nil {
				return err
			}
		}
	}
	return nil
}

func list(out io.Writer) error {
	for _, b := range all {
		if _, err := fmt.Fprintf(out, "%-14s %s\n", b.name, b.what); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(out, "\ngo run ./bench -run NAME [-json] [-write], or -run all; -help lists the options")
	return err
}

func choose(name string) ([]benchmark, error) {
	if name == "all" {
		return all, nil
	}
	names := make([]string, 0, len(all))
	for _, b := range all {
		if b.name == name {
			return []benchmark{b}, nil
		}
		names = append(names, b.name)
	}
	return nil, fmt.Errorf("there is no benchmark %q; there are: %s", name, strings.Join(names, ", "))
}

// measure runs one benchmark in a folder of its own.
func measure(ctx context.Context, c benchmark, o options, progress io.Writer) (_ *result, err error) {
	dir, err := os.MkdirTemp("", "medirecord-bench-")
	if err != nil {
		return nil, err
	}
	b := &bench{options: o, machine: thisMachine(ctx), dir: dir, say: func(format string, a ...any) {
		_, _ = fmt.Fprintf(progress, c.name+": "+format+"\n", a...)
	}}
	defer func() {
		if o.keep {
			b.say("kept %s", dir)
			return
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // PostgreSQL runs as another user and must get through
		return nil, err
	}
	r := &result{Name: c.name, what: c.what, Machine: b.machine, Date: time.Now().UTC()}
	return r, c.run(ctx, b, r)
}

func report(out io.Writer, r *result, asJSON bool) error {
	if !asJSON {
		return r.table(out)
	}
	line, err := json.Marshal(r.line())
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s\n", line)
	return err
}
