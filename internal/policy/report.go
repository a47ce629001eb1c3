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
}

// OK says whether a sidecar would take the file.
func (r *Report) OK() bool { return r.Broken == "" && len(r.Failures) == 0 }

func (r *Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, revision %s: %d questions held against the compiled rules, %d cases\n", r.Name, r.Revision, r.Probes, r.Cases)
	if r.Cases == 0 {
		b.WriteString("no cases folder beside it: only the compiled rules were checked\n")
	}
	if r.Broken != "" {
		fmt.Fprintf(&b, "REFUSED: %s\n", r.Broken)
	}
	for _, f := range r.Failures {
		fmt.Fprintf(&b, "FAILED %s\n", f)
	}
	if r.OK() {
		b.WriteString("ok: a running sidecar takes this file\n")
	}
	return b.String()
}

// Test tries the policy at the path, as Read finds it, the way a sidecar does
// before it takes it, but goes on after the first fault. It reports an error
// when the files cannot be read or do not compile.
func Test(ctx context.Context, path string) (Report, error) {
	ctx, cancel := context.WithTimeout(ctx, loadLimit)
	defer cancel()
	src, err := Read(path)
	if err != nil {
		return Report{}, err
	}
	e, err := compile(ctx, src)
	if err != nil {
		return Report{}, err
	}
	questions := probes()
	r := Report{Name: src.Name, Revision: e.revision, Probes: len(questions), Cases: len(src.Cases)}
	if err := e.checkInvariants(ctx, questions); err != nil {
		r.Broken = err.Error()
	}
	r.Failures = e.RunCases(ctx, src.Cases)
	return r, nil
}
