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
	"sync"

	"go.yaml.in/yaml/v3"

	"github.com/medirecord/medirecord/internal/med"
)

// Case is one example of what the policy must answer, as a privacy officer
// writes it.
type Case struct {
	File   string // cases/nurse.yaml
	Title  string // the rule, in words
	Number int    // in its file, from 1
	Asked  string // which of its questions, where a case in the file has several
	Input  Input
	Expect Expect
}

// Expect is what a case says of the answer. What it leaves out is not looked at,
// unless it is exact: then nothing else is shown, written or asked for.
type Expect struct {
	Allow              bool
	Exact              bool
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
	Asked  string
	Diff   []string // what differed
}

func (f Failure) String() string {
	asked := ""
	if f.Asked != "" {
		asked = " (" + f.Asked + ")"
	}
	return fmt.Sprintf("%s: %q, case %d%s: %s", f.File, f.Title, f.Number, asked, strings.Join(f.Diff, "; "))
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
	Action      words       `yaml:"action"`
	Resource    string      `yaml:"resource"`
	Kind        words       `yaml:"kind"`
	Relation    words       `yaml:"relation"`
	Treating    bool        `yaml:"treating"`
	Sensitivity string      `yaml:"sensitivity"`
	State       string      `yaml:"state"`
	Authorship  string      `yaml:"authorship"`
	Expect      *expectYAML `yaml:"expect"`
}

// words is one word or a list of them: a case asked of each.
type words []string

func (w *words) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.SequenceNode {
		return n.Decode((*[]string)(w))
	}
	*w = words{""}
	return n.Decode(&(*w)[0])
}

// each returns the words, or the one that says nothing.
func (w words) each() []string {
	if len(w) == 0 {
		return []string{""}
	}
	return w
}

// everyOf is each, where the word every stands for all there are.
func everyOf[T ~string](w words, all []T) []string {
	if !slices.Equal(w, words{"every"}) {
		return w.each()
	}
	out := make([]string, len(all))
	for i, word := range all {
		out[i] = string(word)
	}
	return out
}

type expectYAML struct {
	Allow   *bool       `yaml:"allow"`
	Exact   bool        `yaml:"exact"`
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
		some, err := file.Cases[i].understand()
		if err != nil {
			return nil, fmt.Errorf("%s: %q, case %d: %w", name, file.Title, i+1, err)
		}
		for _, c := range some {
			c.File, c.Title, c.Number = name, file.Title, i+1
			out = append(out, c)
		}
	}
	return out, nil
}

// understand returns the questions of a case: one for each action, kind and
// relation that it lists.
func (y *caseYAML) understand() ([]Case, error) {
	expect, err := y.Expect.understand()
	if err != nil {
		return nil, err
	}
	var out []Case
	for _, action := range y.Action.each() {
		for _, kind := range everyOf(y.Kind, med.Kinds) {
			for _, relation := range everyOf(y.Relation, med.Relations) {
				c := Case{Input: y.input(action, kind, relation), Expect: expect}
				if err := c.Input.checkWords(); err != nil {
					return nil, err
				}
				out = append(out, c)
			}
		}
	}
	for i := range out {
		if len(out) > 1 {
			out[i].Asked = out[i].Input.normal().String()
		}
	}
	return out, nil
}

func (y *caseYAML) input(action, kind, relation string) Input {
	in := Input{Subject: Subject{MFA: med.MFA(y.MFA), Grant: y.Grant, ReasonGiven: y.ReasonGiven}, Action: action}
	for _, r := range y.Roles {
		in.Subject.Roles = append(in.Subject.Roles, med.Role(r))
	}
	in.Resource = Resource{
		Type: y.Resource, Kind: med.Kind(kind), Relation: med.Relation(relation), Treating: y.Treating,
		Sensitivity: med.Sensitivity(y.Sensitivity), State: y.State, Authorship: y.Authorship,
	}
	return in
}

func (x *expectYAML) understand() (Expect, error) {
	if x == nil || x.Allow == nil {
		return Expect{}, errors.New("expect.allow is missing")
	}
	for _, f := range slices.Concat(x.Reveal, x.Mask, x.Hide, x.Write, x.NoWrite) {
		if !slices.Contains(everyField, f) {
			return Expect{}, fmt.Errorf("there is no field %q", f)
		}
	}
	return Expect{
		Allow: *x.Allow, Exact: x.Exact, Reason: x.Reason, Reveal: x.Reveal, Mask: x.Mask, Hide: x.Hide,
		Write: x.Write, NoWrite: x.NoWrite, Notify: x.Notify, MaxRows: x.MaxRows,
	}, nil
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
	const workers = 4
	diffs := make([][]string, len(cases))
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < len(cases); i += workers {
				diffs[i] = e.try(ctx, &cases[i])
			}
		})
	}
	wg.Wait()
	var failures []Failure
	for i := range cases {
		if c := &cases[i]; len(diffs[i]) > 0 {
			failures = append(failures, Failure{File: c.File, Title: c.Title, Number: c.Number, Asked: c.Asked, Diff: diffs[i]})
		}
	}
	return failures
}

func (e *Engine) try(ctx context.Context, c *Case) []string {
	d, err := e.decide(ctx, c.Input.normal())
	if err != nil {
		return []string{err.Error()}
	}
	return c.Expect.diff(&d)
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
	if x.Exact {
		x.diffRest(d, differ)
	}
	slices.Sort(diff)
	return diff
}

// diffRest looks at what an exact case does not name.
func (x *Expect) diffRest(d *med.Decision, differ func(what string, got, want any)) {
	named := slices.Concat(x.Reveal, x.Mask, x.Hide)
	for f, show := range d.View {
		if show != med.Hide && !slices.Contains(named, f) {
			differ(string(f), show, med.Hide)
		}
	}
	for f, yes := range d.Write {
		if yes && !slices.Contains(x.Write, f) && !slices.Contains(x.NoWrite, f) {
			differ("write "+string(f), true, false)
		}
	}
	if x.Notify == nil && len(d.Notify) > 0 {
		differ("notify", d.Notify, []string{})
	}
	if x.MaxRows == nil && d.MaxRows != 0 {
		differ("max_rows", d.MaxRows, 0)
	}
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
