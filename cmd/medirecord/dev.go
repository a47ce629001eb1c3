// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"time"

	"github.com/medirecord/medirecord/internal/app"
)

type devCmd struct {
	Listen  string `default:"127.0.0.1:8080" help:"Address of the API; port 0 picks a free one."`
	Ops     string `default:"127.0.0.1:8081" help:"Address of health, readiness and metrics."`
	Sidecar string `default:"127.0.0.1:50051" help:"Address of the sidecar."`
	Data    string `type:"path" help:"Folder of the data; the next start on it finds them again. Default: ${dev_data}."`
	Import  string `type:"path" help:"Import this file or folder into the first practice, in place of sample patients."`
	Sample  int    `default:"25" help:"How many sample patients to make."`
}

func (devCmd) Help() string {
	return `Starts a PostgreSQL of its own, the sidecar, the worker and the API, makes
sample patients, and prints curl lines that are ready to paste. Ctrl-C stops
everything. When all is ready, DATA/dev.json says how to reach each part.

Examples:
  medirecord dev
  medirecord dev --data /tmp/demo --listen 127.0.0.1:0 --ops 127.0.0.1:0 --sidecar 127.0.0.1:0
  medirecord dev --import bundles/`
}

func (c *devCmd) Run(e *env) error {
	if c.Sample < 0 || c.Sample > 100_000 {
		return usage{fmt.Errorf("--sample must be 0 to 100000")}
	}
	return app.Dev(e.ctx, app.DevOptions{
		Listen: c.Listen, Ops: c.Ops, Sidecar: c.Sidecar, Dir: c.Data, Import: c.Import, Sample: c.Sample, Out: e.out, Log: e.err,
	})
}

type tokenCmd struct {
	Data     string        `type:"path" help:"Folder of the development server. Default: ${dev_data}."`
	Role     []string      `required:"" help:"Roles, separated by commas: patient, nurse, clinician, admin, officer, break_glass."`
	Practice string        `help:"The practice the token is for."`
	Sub      string        `help:"The subject. Default: dev-ROLE."`
	Patient  string        `help:"The caller's own patient id."`
	MFA      bool          `name:"mfa" default:"true" negatable:"" help:"Whether the token says that a second factor was used."`
	TTL      time.Duration `name:"ttl" default:"1h" help:"How long the token lives, at most 24h."`
}

func (tokenCmd) Help() string {
	return `Prints a signed token of the development issuer.

Examples:
  medirecord token --role clinician --practice practice-north
  medirecord token --role patient --practice practice-north --patient p-001 --sub alice
  medirecord token --role admin,nurse --practice practice-south --mfa=false --ttl 5m`
}

func (c *tokenCmd) Run(e *env) error {
	dir := c.Data
	if dir == "" {
		dir = app.DefaultDataDir()
	}
	text, err := app.SignDevToken(dir, app.DevToken{Roles: c.Role, Practice: c.Practice, Subject: c.Sub, Patient: c.Patient, MFA: c.MFA, TTL: c.TTL})
	if err != nil {
		return usage{err}
	}
	_, err = fmt.Fprintln(e.out, text)
	return err
}
