// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/medirecord/medirecord/internal/app"
)

type practiceCmd struct {
	Add  practiceAddCmd  `cmd:"" help:"Make a practice with its keys."`
	List practiceListCmd `cmd:"" help:"List the practices."`

	Trust    practiceTrustCmd    `cmd:"" help:"Believe a source of imports when it says who treats whom."`
	Distrust practiceDistrustCmd `cmd:"" help:"Believe it no more."`
	Enroll   practiceEnrollCmd   `cmd:"" help:"Say which login a source's practitioner is."`
	Dismiss  practiceDismissCmd  `cmd:"" help:"Say that a practitioner is that login no more."`
	Sources  practiceSourcesCmd  `cmd:"" help:"List the sources that a practice trusts."`
	Staff    practiceStaffCmd    `cmd:"" help:"List which practitioners are which logins."`
}

type practiceAddCmd struct {
	ID   string `arg:"" help:"The practice's id: letters, digits, dots and hyphens."`
	Name string `required:"" help:"What people call it."`
	Data string `type:"path" help:"Folder of a development server, in place of the configuration."`
}

func (practiceAddCmd) Help() string {
	return `Examples:
  medirecord practice add practice-east --name "MedCore East"
  medirecord practice add practice-east --name "MedCore East" --data /var/lib/medirecord-dev`
}

func (c *practiceAddCmd) Run(e *env) error {
	cfg, err := e.config(c.Data, "operator")
	if err != nil {
		return err
	}
	if err := app.AddPractice(e.ctx, cfg, c.ID, c.Name); err != nil {
		return err
	}
	_, err = fmt.Fprintf(e.out, "practice %s is there, with its keys\n", c.ID)
	return err
}

type practiceListCmd struct {
	Data string `type:"path" help:"Folder of a development server, in place of the configuration."`
}

func (c *practiceListCmd) Run(e *env) error {
	cfg, err := e.config(c.Data, "operator")
	if err != nil {
		return err
	}
	list, err := app.Practices(e.ctx, cfg)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(e.out, 0, 4, 2, ' ', 0)
	for _, p := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\n", p.ID, p.Name, p.CreatedAt.UTC().Format("2006-01-02 15:04:05Z"))
	}
	return w.Flush()
}

type importCmd struct {
	Practice string   `required:"" help:"The practice that takes the patients in."`
	Data     string   `type:"path" help:"Folder of a development server, in place of the configuration."`
	Source   string   `help:"Name of the source. Who treats whom is kept under it, and counts while the practice trusts it."`
	Workers  int      `default:"2" help:"Bundles in flight."`
	Paths    []string `arg:"" type:"path" help:"Bundles (.json, .json.gz), folders of them, bulk NDJSON folders."`
}

func (importCmd) Help() string {
	return `Each bundle is one patient and one transaction, with one audit entry. A bundle
that cannot be read is reported, without its values, and skipped; the exit code
then is 1. Running the same import again skips what is in. Ctrl-C stops after
the bundles in flight, and nothing is lost.

Examples:
  medirecord import --practice practice-north patient.json.gz
  medirecord import --practice practice-north --data /var/lib/medirecord-dev bundles/`
}

func (c *importCmd) Run(e *env) error {
	if c.Workers < 1 || c.Workers > 64 {
		return usage{fmt.Errorf("--workers must be 1 to 64")}
	}
	cfg, err := e.config(c.Data, "import")
	if err != nil {
		return err
	}
	all, err := app.Import(e.ctx, cfg, c.Practice, c.Source, c.Paths, c.Workers, e.out)
	if err != nil {
		return err
	}
	if !all {
		return errReported
	}
	return nil
}

type configCmd struct {
	Check configCheckCmd `cmd:"" help:"Print what will run, secrets redacted."`
}

type configCheckCmd struct{}

func (configCheckCmd) Help() string {
	return `Reads the environment first and medirecord.yaml second, refuses names it does not
know, and prints every setting: its name in the file, in the environment, and
its value with passwords redacted.

Settings, in the environment and in medirecord.yaml:
` + settingNames()
}

func settingNames() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 4, 2, ' ', 0)
	for _, s := range new(app.Config).Settings() {
		_, _ = fmt.Fprintf(w, "  %s\t%s\n", cmp.Or(s.Env, "(file only)"), s.Name)
	}
	_ = w.Flush() // into memory
	return b.String()
}

func (configCheckCmd) Run(e *env) error {
	cfg, err := e.config("", "")
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(e.out, 0, 4, 2, ' ', 0)
	for _, s := range cfg.Settings() {
		fmt.Fprintf(w, "%s\t%s\t%s\n", s.Name, s.Env, s.Value)
	}
	return w.Flush()
}
