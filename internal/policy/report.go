// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"context"
	"fmt"
	"strings"
)

// Report is what a policy file did when it was tried.
type Report struct {
	Name     string
	Revision string
	Probes   int       // questions held against the compiled rules
	Cases    int       // zero: there is no cases folder, only the compiled rules were checked
	Broken   string    // the compiled rule that it breaks, or ""
	Failures []Failure // the cases that it fails
	// CompiledOnly says that the cases were not tried, because nobody asked.
	CompiledOnly bool
}

// OK says whether a sidecar would take the file.
func (r *Report) OK() bool { return r.Broken == "" && len(r.Failures) == 0 }

func (r *Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, revision %s: %d questions held against the compiled rules, ", r.Name, r.Revision, r.Probes)
	switch {
	case r.CompiledOnly:
		b.WriteString("cases not tried\n")
	case r.Cases == 0:
		b.WriteString("0 cases\nno cases folder beside it: only the compiled rules were checked\n")
	default:
		fmt.Fprintf(&b, "%d cases\n", r.Cases)
	}
	if r.Broken != "" {
		fmt.Fprintf(&b, "REFUSED: %s\n", r.Broken)
	}
	for _, f := range r.Failures {
		fmt.Fprintf(&b, "FAILED %s\n", f)
	}
	switch {
	case !r.OK():
	case r.CompiledOnly:
		b.WriteString("ok: it compiles and keeps the compiled rules; policy test tries its cases too\n")
	default:
		b.WriteString("ok: a running sidecar takes this file\n")
	}
	return b.String()
}

// Test tries the policy at the path, as Read finds it, the way a sidecar does
// before it takes it, but goes on after the first fault. With a folder of cases
// it tries those in place of the policy's own. It reports an error when the
// files cannot be read or do not compile.
func Test(ctx context.Context, path, cases string) (Report, error) {
	ctx, cancel := context.WithTimeout(ctx, loadLimit)
	defer cancel()
	src, err := ReadWithCases(path, cases)
	if err != nil {
		return Report{}, err
	}
	e, err := compile(ctx, src)
	if err != nil {
		return Report{}, err
	}
	r := e.check(ctx)
	r.Cases, r.Failures = len(src.Cases), e.RunCases(ctx, src.Cases)
	return r, nil
}

// Check is Test without the cases: whether the file compiles and keeps the
// compiled rules.
func Check(ctx context.Context, path string) (Report, error) {
	ctx, cancel := context.WithTimeout(ctx, loadLimit)
	defer cancel()
	e, err := compileAt(ctx, path)
	if err != nil {
		return Report{}, err
	}
	r := e.check(ctx)
	r.CompiledOnly = true
	return r, nil
}

func (e *Engine) check(ctx context.Context) Report {
	questions := probes()
	r := Report{Name: e.name, Revision: e.revision, Probes: len(questions)}
	if err := e.checkInvariants(ctx, questions); err != nil {
		r.Broken = err.Error()
	}
	return r
}
