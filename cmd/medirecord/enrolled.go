// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/medirecord/medirecord/internal/app"
)

type enrolledArgs struct {
	Practice string `required:"" help:"The practice."`
	Data     string `type:"path" help:"Folder of a development server, in place of the configuration."`
	JSON     bool   `name:"json" help:"One line of JSON for each."`
}

type practiceSourcesCmd struct{ enrolledArgs }

func (practiceSourcesCmd) Help() string {
	return `The sources whose word about who treats whom counts now, and since when. What a
practice trusted before is in the trail.

Examples:
  medirecord practice sources --practice practice-north
  medirecord practice sources --practice practice-north --json`
}

func (c *practiceSourcesCmd) Run(e *env) error {
	cfg, err := e.config(c.Data, "operator")
	if err != nil {
		return err
	}
	list, err := app.TrustedSources(e.ctx, cfg, c.Practice)
	if err != nil {
		return err
	}
	rows := make([]any, len(list))
	for i, s := range list {
		rows[i] = sourceRow{s.Name, second(s.Since)}
	}
	return c.print(e.out, rows)
}

type practiceStaffCmd struct{ enrolledArgs }

func (practiceStaffCmd) Help() string {
	return `Which practitioner of which source is which login now, and since when. It counts
while the source is trusted: see medirecord practice sources.

Examples:
  medirecord practice staff --practice practice-north
  medirecord practice staff --practice practice-north --json`
}

func (c *practiceStaffCmd) Run(e *env) error {
	cfg, err := e.config(c.Data, "operator")
	if err != nil {
		return err
	}
	list, err := app.EnrolledStaff(e.ctx, cfg, c.Practice)
	if err != nil {
		return err
	}
	rows := make([]any, len(list))
	for i, m := range list {
		rows[i] = staffRow{m.Source, m.Practitioner, m.Issuer, m.Subject, second(m.Since)}
	}
	return c.print(e.out, rows)
}

type sourceRow struct {
	Source string `json:"source"`
	Since  string `json:"since"`
}

func (r sourceRow) String() string { return r.Source + "\t" + r.Since }

type staffRow struct {
	Source       string `json:"source"`
	Practitioner string `json:"practitioner"`
	Issuer       string `json:"issuer"`
	Subject      string `json:"subject"`
	Since        string `json:"since"`
}

// String quotes what comes from elsewhere, so that a line stays one.
func (r staffRow) String() string {
	return fmt.Sprintf("%s\t%q\t%q\t%q\t%s", r.Source, r.Practitioner, r.Issuer, r.Subject, r.Since)
}

func second(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

func (c *enrolledArgs) print(out io.Writer, rows []any) error {
	if c.JSON {
		lines := json.NewEncoder(out)
		for _, r := range rows {
			if err := lines.Encode(r); err != nil {
				return err
			}
		}
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	for _, r := range rows {
		_, _ = fmt.Fprintln(w, r) // into memory, until Flush
	}
	return w.Flush()
}
