// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/medirecord/medirecord/internal/med"
)

// Case is one example of what the policy must answer, as a privacy officer
// writes it.
type Case struct {
	File   string // cases/nurse.yaml
	Title  string // the rule, in words
	Number int    // in its file, from 1
	Input  Input
	Expect Expect
}

// Expect is what a case says of the answer. What it leaves out is not looked at.
type Expect struct {
	Allow              bool
	Reason             string
	Reveal, Mask, Hide []med.Field
	Write, NoWrite     []med.Field
	Notify             []string
	MaxRows            *int
}

// Failure is a case that the policy does not pass.
type Failure struct {
	File   string
	Title  string
	Number int
	Diff   []string // what differed
}

func (f Failure) String() string {
	return fmt.Sprintf("%s: %q, case %d: %s", f.File, f.Title, f.Number, strings.Join(f.Diff, "; "))
}

// caseFile is the YAML of a file of cases.
type caseFile struct {
	Title string     `yaml:"title"`
	Cases []caseYAML `yaml:"cases"`
}

type caseYAML struct {
	Roles       []string    `yaml:"roles"`
	MFA         string      `yaml:"mfa"`
	Grant       bool        `yaml:"grant"`
	ReasonGiven bool        `yaml:"reason_given"`
	Action      string      `yaml:"action"`
	Resource    string      `yaml:"resource"`
	Kind        string      `yaml:"kind"`
	Relation    string      `yaml:"relation"`
	Treating    bool        `yaml:"treating"`
	Sensitivity string      `yaml:"sensitivity"`
	State       string      `yaml:"state"`
	Authorship  string      `yaml:"authorship"`
	Expect      *expectYAML `yaml:"expect"`
}

type expectYAML struct {
	Allow   *bool       `yaml:"allow"`
	Reason  string      `yaml:"reason"`
	Reveal  []med.Field `yaml:"reveal"`
	Mask    []med.Field `yaml:"mask"`
	Hide    []med.Field `yaml:"hide"`
	Write   []med.Field `yaml:"write"`
	NoWrite []med.Field `yaml:"no_write"`
	Notify  []string    `yaml:"notify"`
	MaxRows *int        `yaml:"max_rows"`
}

// parseCases reads one file of cases. It reports unknown keys and unknown
// words: a case about a misspelt action would pass for the wrong reason.
func parseCases(name string, text []byte) ([]Case, error) {
	var file caseFile
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(&file); err != nil {
		return nil, fmt.Errorf("%s cannot be read: %w", name, err)
	}
	if err := dec.Decode(new(any)); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s has more than one document", name)
	}
	if strings.TrimSpace(file.Title) == "" || len(file.Cases) == 0 {
		return nil, fmt.Errorf("%s needs a title and cases", name)
	}
	out := make([]Case, 0, len(file.Cases))
	for i := range file.Cases {
		c, err := file.Cases[i].understand()
		if err != nil {
			return nil, fmt.Errorf("%s: %q, case %d: %w", name, file.Title, i+1, err)
		}
		c.File, c.Title, c.Number = name, file.Title, i+1
		out = append(out, c)
	}
	return out, nil
}

func (y *caseYAML) understand() (Case, error) {
	var c Case
	for _, r := range y.Roles {
		c.Input.Subject.Roles = append(c.Input.Subject.Roles, med.Role(r))
	}
	c.Input.Subject.MFA, c.Input.Subject.Grant = med.MFA(y.MFA), y.Grant
	c.Input.Subject.ReasonGiven = y.ReasonGiven
	c.Input.Action = y.Action
	c.Input.Resource = Resource{
		Type: y.Resource, Kind: med.Kind(y.Kind), Relation: med.Relation(y.Relation), Treating: y.Treating,
		Sensitivity: med.Sensitivity(y.Sensitivity), State: y.State, Authorship: y.Authorship,
	}
	if err := c.Input.checkWords(); err != nil {
		return Case{}, err
	}
	if y.Expect == nil || y.Expect.Allow == nil {
		return Case{}, errors.New("expect.allow is missing")
	}
	x := y.Expect
	for _, f := range slices.Concat(x.Reveal, x.Mask, x.Hide, x.Write, x.NoWrite) {
		if !slices.Contains(everyField, f) {
			return Case{}, fmt.Errorf("there is no field %q", f)
		}
	}
	c.Expect = Expect{
		Allow: *x.Allow, Reason: x.Reason, Reveal: x.Reveal, Mask: x.Mask, Hide: x.Hide,
		Write: x.Write, NoWrite: x.NoWrite, Notify: x.Notify, MaxRows: x.MaxRows,
	}
	return c, nil
}

// checkWords reports the first word that does not exist. Empty ones are what is
// not said.
func (in *Input) checkWords() error {
	for _, r := range in.Subject.Roles {
		if r != "provider" && !slices.Contains(roleWords, r) {
			return fmt.Errorf("there is no role %q", r)
		}
	}
	if questionOf(in.Resource.Type, in.Action) == 0 {
		return fmt.Errorf("there is no action %q on %q", in.Action, in.Resource.Type)
	}
	return errors.Join(
		checkWord("mfa", mfaWords, in.Subject.MFA),
		checkWord("kind", kindWords, in.Resource.Kind),
		checkWord("relation", relationWords, in.Resource.Relation),
		checkWord("sensitivity", sensitivityWords, in.Resource.Sensitivity),
		checkWord("state", stateWords, in.Resource.State),
		checkWord("authorship", authorshipWords, in.Resource.Authorship),
	)
}

func checkWord[T ~string](what string, words []T, word T) error {
	if word == "" || slices.Contains(words, word) {
		return nil
	}
	return fmt.Errorf("there is no %s %q", what, word)
}

// RunCases tries the cases and returns those that the policy does not pass.
func (e *Engine) RunCases(ctx context.Context, cases []Case) []Failure {
	var failures []Failure
	for i := range cases {
		c := &cases[i]
		d, err := e.decide(ctx, c.Input.normal())
		diff := c.Expect.diff(&d)
		if err != nil {
			diff = []string{err.Error()}
		}
		if len(diff) > 0 {
			failures = append(failures, Failure{File: c.File, Title: c.Title, Number: c.Number, Diff: diff})
		}
	}
	return failures
}

// diff says in words how the decision differs from what was expected.
func (x *Expect) diff(d *med.Decision) []string {
	var diff []string
	differ := func(what string, got, want any) {
		diff = append(diff, fmt.Sprintf("%s is %v, expected %v", what, got, want))
	}
	if d.Allow != x.Allow {
		differ("allow", fmt.Sprintf("%v (%s)", d.Allow, d.Reason), x.Allow)
	}
	if x.Reason != "" && d.Reason != x.Reason {
		differ("reason", d.Reason, x.Reason)
	}
	for want, fields := range map[med.Show][]med.Field{med.Reveal: x.Reveal, med.Mask: x.Mask, med.Hide: x.Hide} {
		for _, f := range fields {
			if got := d.View[f]; got != want {
				differ(string(f), got, want)
			}
		}
	}
	for want, fields := range map[bool][]med.Field{true: x.Write, false: x.NoWrite} {
		for _, f := range fields {
			if got := d.Write[f]; got != want {
				differ("write "+string(f), got, want)
			}
		}
	}
	if x.Notify != nil && !slices.Equal(d.Notify, x.Notify) {
		differ("notify", d.Notify, x.Notify)
	}
	if x.MaxRows != nil && d.MaxRows != *x.MaxRows {
		differ("max_rows", d.MaxRows, *x.MaxRows)
	}
	slices.Sort(diff)
	return diff
}

// joined makes one error of the first failures.
func joined(failures []Failure) error {
	const shown = 5
	var lines []string
	for i, f := range failures {
		if i == shown {
			lines = append(lines, fmt.Sprintf("and %d more", len(failures)-shown))
			break
		}
		lines = append(lines, f.String())
	}
	return errors.New(strings.Join(lines, "\n"))
}
