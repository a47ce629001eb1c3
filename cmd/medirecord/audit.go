// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/medirecord/medirecord/internal/app"
)

type auditCmd struct {
	Export auditExportCmd `cmd:"" help:"Write a month of the audit trail to a file that anybody can verify."`
	Verify auditVerifyCmd `cmd:"" help:"Verify exports, receipts or the database: exit code 3 if anything was changed."`
}

type auditExportCmd struct {
	Month string `required:"" placeholder:"2026-11" help:"The month, in UTC."`
	Out   string `type:"path" default:"." help:"A file, or a folder for one file an epoch."`
	Data  string `type:"path" help:"Folder of a development server, in place of the configuration."`
}

func (auditExportCmd) Help() string {
	return `Reads as medirecord_auditor (MEDIRECORD_AUDITOR_DATABASE_URL) and writes gzip of
JSON lines: a header with the signed checkpoint, one line for each place of the
log, and an end. An entry that is missing or is not what was sealed stops it:
run ` + "`medirecord audit verify`" + `. Nothing half-written is left behind.

docs/verify.py reads the same file, without this program.

Examples:
  medirecord audit export --month 2026-11 --out /srv/audit/
  medirecord audit export --month 2026-11 --data /var/lib/medirecord-dev`
}

func (c *auditExportCmd) Run(e *env) error {
	start, err := time.Parse("2006-01", c.Month)
	if err != nil {
		return usage{errors.New("--month must look like 2026-11")}
	}
	cfg, err := e.config(c.Data, "operator")
	if err != nil {
		return err
	}
	return app.ExportTrail(e.ctx, cfg, start, c.Out, os.Stderr, func(file string, entries int64, cosigned bool) {
		fmt.Fprintf(e.out, "%s: %d entries\n", file, entries)
		if !cosigned {
			fmt.Fprintln(e.err, "medirecord: no witness has cosigned the checkpoint yet that covers them: export again when one has")
		}
	})
}

type auditVerifyCmd struct {
	Files      []string      `arg:"" optional:"" type:"path" help:"Exports."`
	Database   string        `placeholder:"URL" help:"Verify this database, as medirecord_auditor. With - the configured one."`
	Policy     string        `type:"path" placeholder:"FILE" help:"C2SP tlog-policy: whose signatures count. Default: MEDIRECORD_TRAIL_POLICY."`
	Sink       []string      `placeholder:"DIR" help:"Hold it, leaf by leaf, against what a write-once sink keeps."`
	Checkpoint []string      `type:"path" placeholder:"FILE" help:"Hold it against a checkpoint that was kept."`
	Proof      []string      `type:"path" placeholder:"FILE" help:"Verify a receipt (C2SP tlog-proof); FILE.json beside it is its entry."`
	MaxAge     time.Duration `placeholder:"24h" help:"What proves it must be no older."`
	Data       string        `type:"path" help:"Folder of a development server: its database and policy."`
	JSON       bool          `name:"json" help:"One line of JSON for each finding, each log, and the verdict."`
}

func (auditVerifyCmd) Help() string {
	return `Hashes every entry anew and names each that was altered, re-dated, reordered,
taken out or put in, by its place and id. It goes on to the end, whatever it
finds. Files need no database. What everything in one place agrees on can have
been rewritten in that place: give it what is kept elsewhere with --sink or
--checkpoint, and it names the entries of such a rewrite, and those that a
restored backup has taken back.

Exit codes: 0 clean, 1 could not be verified or proved, 2 wrong usage, 3 tampered.

Examples:
  medirecord audit verify --policy trail.policy audit-2026-*.ndjson.gz
  medirecord audit verify --policy trail.policy --sink /mnt/worm --database - --max-age 1h
  medirecord audit verify --policy trail.policy --proof receipt.tlog-proof`
}

func (c *auditVerifyCmd) Run(e *env) error {
	if len(c.Files) == 0 && len(c.Proof) == 0 && c.Database == "" && c.Data == "" {
		return usage{errors.New("nothing to verify: name exports, --proof, --database or --data")}
	}
	opt := app.AuditOptions{
		Files: c.Files, Database: c.Database, Policy: c.Policy, Sinks: c.Sink, Checkpoints: c.Checkpoint, Proofs: c.Proof, MaxAge: c.MaxAge,
		JSON: c.JSON, Out: e.out, Progress: os.Stderr, Now: time.Now,
	}
	if c.Data != "" || c.Database == "-" || c.Policy == "" {
		cfg, err := e.config(c.Data, "operator")
		if err != nil {
			return err
		}
		opt.Dev = cfg.Dev()
		if opt.Policy == "" {
			opt.Policy = cfg.TrailPolicy
		}
		if c.Database == "-" || c.Data != "" {
			if cfg.AuditorDatabaseURL == "" {
				return usage{errors.New("--database - needs MEDIRECORD_AUDITOR_DATABASE_URL")}
			}
			opt.Database = cfg.AuditorDatabaseURL
		}
	}
	if opt.Policy == "" && c.Data != "" {
		opt.Policy = filepath.Join(c.Data, "trail.policy")
	}
	if opt.Policy == "" {
		return usage{errors.New("--policy says whose signatures count; without it nothing is proved")}
	}
	v, err := app.VerifyTrail(e.ctx, opt)
	switch {
	case err != nil:
		return err
	case v == app.Tampered:
		return errTampered
	case v != app.Clean:
		return errReported
	}
	return nil
}
