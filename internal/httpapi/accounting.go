// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"html/template"
	"strconv"

	"github.com/medirecord/medirecord/internal/med"
)

// sheet is a page to print: a template and its one style, which the policy of
// the answer names by its hash. Nothing else on the page is obeyed.
type sheet struct {
	page  *template.Template
	style template.CSS
	csp   string
}

// newSheet reads both from the folder page.
func newSheet(html, style string) (sheet, error) {
	css, err := page.ReadFile("page/" + style)
	if err != nil {
		return sheet{}, fmt.Errorf("a style of ours: %w", err)
	}
	t, err := template.ParseFS(page, "page/"+html)
	if err != nil {
		return sheet{}, fmt.Errorf("a page of ours: %w", err)
	}
	sum := sha256.Sum256(css)
	csp := "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; sandbox"
	return sheet{t, template.CSS(css), csp}, nil //nolint:gosec // our own file, not a client's text
}

// printed is an answer of HTML.
type printed struct {
	Event       string `header:"Audit-Event-Id" doc:"The audit entry of this answer."`
	ContentType string `header:"Content-Type" hidden:"true"`
	Policy      string `header:"Content-Security-Policy" hidden:"true"`
	Body        []byte
}

func (p *printed) entry() med.EventID { return med.EventID(p.Event) }

type accountingPage struct {
	Style                                    template.CSS
	Practice, Patient, From, To, Made, Event string
	Lines                                    []accountingLine
}

type accountingLine struct {
	First, Last, Often, Recipient, Address, Description, Purpose, Request, Basis string
}

func (s *Server) printAccounting(ctx context.Context, c med.Caller, in *accountingInput) (*printed, error) {
	id, ask, err := in.ask()
	if err != nil {
		return nil, err
	}
	ask.ForPatient = true // whoever prints it may hand it over
	a, err := s.cfg.Chart.ReadAccounting(ctx, c, id, ask)
	if err != nil {
		return nil, err
	}
	page := accountingPage{
		Style: s.accounting.style, Practice: a.Name, Patient: string(a.Patient), From: a.Window.From.Reveal(), To: a.Window.To.Reveal(),
		Made: a.Made.Reveal(), Event: string(a.Event),
	}
	for i := range a.Lines {
		page.Lines = append(page.Lines, accountingLineOf(&a.Lines[i]))
	}
	var b bytes.Buffer
	if err := s.accounting.page.Execute(&b, page); err != nil {
		return nil, fmt.Errorf("printing an accounting: %w", err)
	}
	return &printed{Event: string(a.Event), ContentType: "text/html; charset=utf-8", Policy: s.accounting.csp, Body: b.Bytes()}, nil
}

func accountingLineOf(l *med.AccountedDisclosure) accountingLine {
	told := accountedOf(l)
	return accountingLine{
		First: told.First, Last: told.Last, Often: often(l), Recipient: told.Recipient.Name, Address: told.Recipient.Address,
		Description: told.Description, Purpose: told.Purpose, Request: told.Request, Basis: told.BasisText,
	}
}

// often says how often, in words.
func often(l *med.AccountedDisclosure) string {
	words := string(l.Frequency)
	if words == "irregular" {
		words = "irregularly"
	}
	if l.Count > 1 {
		if words != "" {
			words += ", "
		}
		words += strconv.Itoa(l.Count) + " times"
	}
	return words
}
