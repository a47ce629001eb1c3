// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/medirecord/medirecord/internal/app"
	"github.com/medirecord/medirecord/internal/chart"
)

type sourceArgs struct {
	Practice string `required:"" help:"The practice."`
	Data     string `type:"path" help:"Folder of a development server, in place of the configuration."`
	Source   string `arg:"" help:"The source, as medirecord import --source names it."`
}

func (c *sourceArgs) trust(e *env, trusted bool) error {
	cfg, err := e.config(c.Data, "operator")
	if err != nil {
		return err
	}
	if err := app.TrustSource(e.ctx, cfg, c.Practice, c.Source, trusted); err != nil {
		return err
	}
	word := "trusts"
	if !trusted {
		word = "does not trust"
	}
	_, err = fmt.Fprintf(e.out, "practice %s %s %s to say who treats whom\n", c.Practice, word, c.Source)
	return err
}

type practiceTrustCmd struct{ sourceArgs }

func (practiceTrustCmd) Help() string {
	return `Encounters, care teams and orders of an import say who treats whom. They count as
such, for a policy that asks, from the moment a practice trusts their source,
those of earlier imports too.

Examples:
  medirecord practice trust --practice practice-north ehr`
}

func (c *practiceTrustCmd) Run(e *env) error { return c.trust(e, true) }

type practiceDistrustCmd struct{ sourceArgs }

func (practiceDistrustCmd) Help() string {
	return `What the source said is kept, and counts no more.

Examples:
  medirecord practice distrust --practice practice-north ehr`
}

func (c *practiceDistrustCmd) Run(e *env) error { return c.trust(e, false) }

type practitionerArgs struct {
	sourceArgs
	Practitioner string `arg:"" help:"As the source names them: system|value of an identifier, or Practitioner/ID."`
}

type practiceEnrollCmd struct {
	practitionerArgs
	Issuer  string `required:"" help:"Issuer of their tokens."`
	Subject string `required:"" help:"Subject of their tokens."`
}

func (practiceEnrollCmd) Help() string {
	return `Examples:
  medirecord practice enroll --practice practice-north --issuer https://id.example --subject doc-7 ehr "http://hl7.org/fhir/sid/us-npi|1234567893"`
}

func (c *practiceEnrollCmd) Run(e *env) error {
	cfg, err := e.config(c.Data, "operator")
	if err != nil {
		return err
	}
	m := chart.StaffMember{Source: c.Source, Practitioner: c.Practitioner, Issuer: c.Issuer, Subject: c.Subject}
	if err := app.EnrollStaff(e.ctx, cfg, c.Practice, m); err != nil {
		return err
	}
	_, err = fmt.Fprintf(e.out, "practitioner %s of %s is %s\n", c.Practitioner, c.Source, c.Subject)
	return err
}

type practiceDismissCmd struct{ practitionerArgs }

func (practiceDismissCmd) Help() string {
	return `Examples:
  medirecord practice dismiss --practice practice-north ehr "http://hl7.org/fhir/sid/us-npi|1234567893"`
}

func (c *practiceDismissCmd) Run(e *env) error {
	cfg, err := e.config(c.Data, "operator")
	if err != nil {
		return err
	}
	if err := app.DismissStaff(e.ctx, cfg, c.Practice, chart.StaffMember{Source: c.Source, Practitioner: c.Practitioner}); err != nil {
		return err
	}
	_, err = fmt.Fprintf(e.out, "practitioner %s of %s is nobody's login\n", c.Practitioner, c.Source)
	return err
}
