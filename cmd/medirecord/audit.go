// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/medirecord/medirecord/internal/app"
)

type auditCmd struct {
	Export auditExportCmd `cmd:"" help:"Write a month of the audit trail to a file that anybody can verify."`
	Verify auditVerifyCmd `cmd:"" help:"Verify exports, receipts or the database: exit code 3 if anything was changed."`
	Prune  auditPruneCmd  `cmd:"" help:"Drop months that are older than the policy: exported, verified, announced, then dropped."`
	Hold   auditHoldCmd   `cmd:"" help:"Keep what the policy would let go, for a court or a regulator."`
	Key    auditKeyCmd    `cmd:"" help:"Make a key that signs the log's checkpoints."`
	Epoch  auditEpochCmd  `cmd:"" help:"Begin a new epoch of the log, after a restore."`
}

type auditPruneCmd struct {
	Out       string `required:"" type:"path" help:"Folder for the exports."`
	OlderThan string `default:"6y" placeholder:"7y" help:"Whole years: 6y at least."`
	Policy    string `type:"path" placeholder:"FILE" help:"C2SP tlog-policy. Default: MEDIRECORD_TRAIL_POLICY."`
	DryRun    bool   `help:"Say what would go, and do nothing."`
}

func (auditPruneCmd) Help() string {
	return `Each month that ended longer ago is exported to --out and the file read back and
verified; an entry that says what goes is written and waited for until it is
sealed and cosigned; then the database, after checks of its own, drops the
month's partition as medirecord_retention (MEDIRECORD_RETENTION_DATABASE_URL).
Six years are the least, whatever is asked. Months that a hold covers stay.

Hashes stay: old receipts, checkpoints and exports verify as before, and of each
patient it is kept which places of the log were about them. Stopped half-way,
run it again: it goes on where it was.

Examples:
  medirecord audit prune --out /srv/audit/ --dry-run
  medirecord audit prune --out /srv/audit/ --older-than 7y --policy trail.policy`
}

func (c *auditPruneCmd) Run(e *env) error {
	years, err := strconv.Atoi(strings.TrimSuffix(c.OlderThan, "y"))
	if err != nil || !strings.HasSuffix(c.OlderThan, "y") || years < 6 || years > 100 {
		return usage{errors.New("--older-than must be whole years from 6y to 100y: the trail is kept six years at least")}
	}
	cfg, err := e.config("", "")
	if err != nil {
		return err
	}
	policy := cmp.Or(c.Policy, cfg.TrailPolicy)
	if policy == "" {
		return usage{errors.New("--policy says whose signatures count; nothing is dropped without")}
	}
	return app.PruneTrail(e.ctx, cfg, app.PruneOptions{Out: c.Out, Years: years, DryRun: c.DryRun, Policy: policy, Progress: os.Stderr, Now: time.Now},
		func(format string, args ...any) { fmt.Fprintf(e.out, format+"\n", args...) })
}

type auditHoldCmd struct {
	Add  auditHoldAddCmd  `cmd:"" help:"Place a hold."`
	End  auditHoldEndCmd  `cmd:"" help:"End a hold."`
	List auditHoldListCmd `cmd:"" help:"List the holds."`
}

type auditHoldAddCmd struct {
	Name    string `arg:"" help:"What it is called: a case number, no names of people."`
	Patient string `help:"Only months with entries about this patient."`
	From    string `placeholder:"2019-01" help:"The first month."`
	Until   string `placeholder:"2020-12" help:"The last month."`
}

func (auditHoldAddCmd) Help() string {
	return `As medirecord_retention; it leaves an entry in the trail.

Examples:
  medirecord audit hold add case-2031 --from 2024-01 --until 2024-06
  medirecord audit hold add case-2032 --patient p-001`
}

func (c *auditHoldAddCmd) Run(e *env) error {
	h := app.Hold{Name: c.Name, Patient: c.Patient}
	for _, x := range []struct {
		name, text string
		to         **time.Time
	}{{"--from", c.From, &h.From}, {"--until", c.Until, &h.Until}} {
		if x.text == "" {
			continue
		}
		at, err := time.Parse("2006-01", x.text)
		if err != nil {
			return usage{fmt.Errorf("%s must look like 2024-01", x.name)}
		}
		*x.to = &at
	}
	cfg, err := e.config("", "")
	if err != nil {
		return err
	}
	return app.PlaceHold(e.ctx, cfg, time.Now(), h)
}

type auditHoldEndCmd struct {
	Name string `arg:"" help:"Its name."`
}

func (c *auditHoldEndCmd) Run(e *env) error {
	cfg, err := e.config("", "")
	if err != nil {
		return err
	}
	return app.EndHold(e.ctx, cfg, time.Now(), c.Name)
}

type auditHoldListCmd struct{}

func (auditHoldListCmd) Run(e *env) error {
	cfg, err := e.config("", "")
	if err != nil {
		return err
	}
	list, err := app.Holds(e.ctx, cfg)
	if err != nil {
		return err
	}
	month := func(t *time.Time) string {
		if t == nil {
			return "..."
		}
		return t.Format("2006-01")
	}
	w := tabwriter.NewWriter(e.out, 0, 4, 2, ' ', 0)
	for _, h := range list {
		state := "in force"
		if h.EndedAt != nil {
			state = "ended " + h.EndedAt.UTC().Format("2006-01-02")
		}
		fmt.Fprintf(w, "%s\t%s to %s\t%s\t%s\n", h.Name, month(h.From), month(h.Until), cmp.Or(h.Patient, "everybody"), state)
	}
	return w.Flush()
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
