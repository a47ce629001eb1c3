// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/medirecord/medirecord/internal/policy"
)

type policyCmd struct {
	Test  policyTestCmd  `cmd:"" help:"Try a policy file as a sidecar would, and its cases."`
	Check policyCheckCmd `cmd:"" help:"Compile a policy file and hold it against the rules that none may break."`
	Diff  policyDiffCmd  `cmd:"" help:"Say who may see or do more, and who less, under another policy file."`
}

type policyTestCmd struct {
	File  string `arg:"" optional:"" help:"A .rego file or its folder. Default: the built-in policy."`
	Cases string `placeholder:"DIR" help:"Try the cases in this folder in place of its own."`
}

func (policyTestCmd) Help() string {
	return `Compiles the file, holds it against the rules that no policy may break, and runs
the cases beside it: cases/*.yaml, or cases/NAME/*.yaml for a file of the package
medirecord.NAME, which builds on the medirecord.rego beside it. Works offline.

The policies of this binary are builtin:medirecord and builtin:hospital.

Exit codes: 0 a sidecar takes it, 1 it does not.

Examples:
  medirecord policy test
  medirecord policy test /etc/medirecord/policy
  medirecord policy test /etc/medirecord/policy/hospital.rego
  medirecord policy test new.rego --cases /etc/medirecord/policy/cases`
}

func (c *policyTestCmd) Run(e *env) error {
	r, err := policy.Test(e.ctx, c.File, c.Cases)
	return e.report(&r, err)
}

type policyCheckCmd struct {
	File string `arg:"" optional:"" help:"A .rego file or its folder. Default: the built-in policy."`
}

func (policyCheckCmd) Help() string {
	return `Tries what policy test tries, but no cases: for a file in the making. Works
offline. Exit codes: 0 it is sound, 1 it is not.

Examples:
  medirecord policy check /etc/medirecord/policy/medirecord.rego`
}

func (c *policyCheckCmd) Run(e *env) error {
	r, err := policy.Check(e.ctx, c.File)
	return e.report(&r, err)
}

func (e *env) report(r *policy.Report, err error) error {
	if err != nil {
		return err
	}
	fmt.Fprint(e.out, r.String())
	if !r.OK() {
		return errReported
	}
	return nil
}

type policyDiffCmd struct {
	Old string `arg:"" help:"The policy in force: a .rego file or its folder."`
	New string `arg:"" help:"The policy that would follow it."`
}

func (policyDiffCmd) Help() string {
	return `Asks both policies everything that each role can ask, and prints the answers
that differ: for whom, to do what, which fields, and when. What lets somebody see
or do more comes first and begins with WIDER. Works offline, in some seconds.

Callers of several roles get the widest of what their roles get, unless a file
says otherwise; that is not tried. Nor are the cases: see policy test.

Exit codes: 0 nothing changes, 1 something does, 2 a file cannot be read or does
not compile.

Examples:
  medirecord policy diff builtin:medirecord /etc/medirecord/policy
  medirecord policy diff policy/medirecord.rego policy/hospital.rego`
}

func (c *policyDiffCmd) Run(e *env) error {
	changes, err := policy.DiffFiles(e.ctx, c.Old, c.New)
	if err != nil {
		return usage{err}
	}
	wider := 0
	for i := range changes {
		if changes[i].Wider {
			wider++
		}
		fmt.Fprintln(e.out, changes[i].String())
	}
	if len(changes) == 0 {
		fmt.Fprintln(e.out, "nothing changes")
		return nil
	}
	fmt.Fprintf(e.out, "%d changes, %d of them let somebody see or do more\n", len(changes), wider)
	return errReported
}
