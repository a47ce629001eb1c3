// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/cover"
	"github.com/open-policy-agent/opa/v1/rego"

	"github.com/medirecord/medirecord/internal/med"
)

func TestCasesAreReadStrictly(t *testing.T) {
	t.Parallel()
	const good = `{roles: [nurse], mfa: done, action: read, resource: patient, relation: same_practice, expect: {allow: true, hide: [ssn]}}`
	file := func(c string) string { return "title: A nurse\ncases:\n  - " + c + "\n" }
	if cases, err := parseCases("x.yaml", []byte(file(good))); err != nil || len(cases) != 1 {
		t.Fatalf("%d cases, error %v", len(cases), err)
	}
	change := func(old, changed string) string { return file(strings.Replace(good, old, changed, 1)) }
	bad := map[string]struct{ text, want string }{
		"nothing":                {"", "cannot be read"},
		"no title":               {strings.Replace(file(good), "title: A nurse\n", "", 1), "needs a title"},
		"no cases":               {"title: A nurse\n", "needs a title and cases"},
		"an unknown key":         {change("mfa: done", "mfa: done, ward: 3"), "ward"},
		"a key twice":            {change("mfa: done", "mfa: done, mfa: none"), "mfa"},
		"an unknown role":        {change("[nurse]", "[nurs]"), `no role "nurs"`},
		"an unknown action":      {change("action: read", "action: raed"), `no action "raed"`},
		"an unknown relation":    {change("same_practice", "my_practice"), `no relation "my_practice"`},
		"an unknown mfa":         {change("mfa: done", "mfa: yes"), "no mfa"},
		"an unknown field":       {change("[ssn]", "[snn]"), `no field "snn"`},
		"no expectation":         {file(`{roles: [nurse], action: read, resource: patient}`), "expect.allow is missing"},
		"no allow":               {change("allow: true, ", ""), "expect.allow is missing"},
		"a second document":      {file(good) + "---\ntitle: more\n", "more than one document"},
		"an unknown sensitivity": {change("mfa: done", "mfa: done, sensitivity: high"), "no sensitivity"},
	}
	for name, b := range bad {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := parseCases("x.yaml", []byte(b.text))
			if err == nil || !strings.Contains(err.Error(), b.want) || !strings.Contains(err.Error(), "x.yaml") {
				t.Errorf("error %v, want one about %q in x.yaml", err, b.want)
			}
		})
	}
}

func TestAFailureSaysWhatDiffered(t *testing.T) {
	t.Parallel()
	const text = `title: Nurses see everything
cases:
  - {roles: [nurse], mfa: done, action: read, resource: patient, relation: same_practice, expect: {allow: true}}
  - {roles: [nurse], mfa: done, action: read, resource: patient, relation: same_practice, expect: {allow: false, reason: role, reveal: [ssn], mask: [dob], hide: [name], write: [phone], notify: [officer], max_rows: 5}}
`
	cases, err := parseCases("cases/all.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	failures := compiled(t, defaultSource(t)).RunCases(t.Context(), cases)
	if len(failures) != 1 {
		t.Fatalf("%d failures, want 1", len(failures))
	}
	const want = `cases/all.yaml: "Nurses see everything", case 2: allow is true (permitted), expected false; ` +
		`dob is reveal, expected mask; max_rows is 0, expected 5; name is reveal, expected hide; notify is [], expected [officer]; ` +
		`reason is permitted, expected role; ssn is hide, expected reveal; write phone is false, expected true`
	if got := failures[0].String(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// Each permission in the file has a case that uses it and one in which it is
// not enough, so that nobody widens or narrows one unnoticed.
func TestEveryPermissionHasACaseForAndAgainst(t *testing.T) {
	t.Parallel()
	src := defaultSource(t)
	e := compiled(t, src)
	seen := map[string]int{}
	const for_, against = 1, 2
	for _, c := range src.Cases {
		roles := c.Input.Subject.Roles
		if len(roles) != 1 {
			continue
		}
		role := roles[0]
		if c.Input.Resource.Relation == med.RelationSelf {
			role = med.RolePatient
			if c.Input.Action == "search" && c.Expect.Allow != true {
				role = roles[0]
			}
		}
		key := fmt.Sprintf("%s/%s/%s", c.Input.Resource.Type, c.Input.Action, role)
		if c.Expect.Allow {
			seen[key] |= for_
		} else {
			seen[key] |= against
			// What a service may do everywhere is denied to others.
			seen[fmt.Sprintf("%s/%s", c.Input.Resource.Type, c.Input.Action)] |= against
		}
	}
	out, err := e.Evaluate(t.Context(), "data.medirecord.permits", nil)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for resource, actions := range out.(map[string]any) {
		for action, roles := range actions.(map[string]any) {
			if questionOf(resource, action) == 0 {
				t.Errorf("the policy permits %s %s, which nobody can ask", action, resource)
			}
			for role, condition := range roles.(map[string]any) {
				n++
				if condition == "everywhere" {
					seen[fmt.Sprintf("%s/%s/%s", resource, action, role)] |= seen[resource+"/"+action]
				}
				if key := fmt.Sprintf("%s/%s/%s", resource, action, role); seen[key]&for_ == 0 {
					t.Errorf("no case allows %s", key)
				} else if seen[key]&against == 0 {
					t.Errorf("no case denies %s", key)
				}
			}
		}
	}
	if n < 50 {
		t.Errorf("only %d permissions were found", n)
	}
}

// Every rule of each policy file, and every expression in it, is used by one of
// its cases.
func TestTheCasesCoverTheFile(t *testing.T) {
	t.Parallel()
	for _, src := range []Source{defaultSource(t), hospitalSource(t)} {
		modules := map[string]*ast.Module{}
		options := []func(*rego.Rego){rego.Query("data.medirecord.decision")}
		if src.Base != nil {
			options[0] = rego.Query("data.medirecord.hospital.decision")
			modules[FileName] = parsed(t, FileName, src.Base)
		}
		modules[src.Name] = parsed(t, src.Name, src.Rego)
		for _, m := range modules {
			options = append(options, rego.ParsedModule(m))
		}
		query, err := rego.New(options...).PrepareForEval(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		covered := cover.New()
		for i := range src.Cases {
			if src.Cases[i].Expect.Exact { // the tables: thousands, and of nothing more
				continue
			}
			f := src.Cases[i].Input.normal()
			if _, err := query.Eval(t.Context(), rego.EvalInput(f.document()), rego.EvalQueryTracer(covered)); err != nil {
				t.Fatal(err)
			}
		}
		file := covered.Report(modules).Files[src.Name]
		if file.Coverage < 100 {
			text, err := json.Marshal(file.NotCovered)
			if err != nil {
				t.Fatal(err)
			}
			t.Errorf("the cases cover %.1f %% of %s; not lines %s", file.Coverage, src.Name, text)
		}
	}
}

func parsed(t *testing.T, name string, text []byte) *ast.Module {
	t.Helper()
	m, err := ast.ParseModuleWithOpts(name, string(text), ast.ParserOptions{RegoVersion: ast.RegoV1})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestAReportTellsAnOfficerWhatIsWrong(t *testing.T) {
	t.Parallel()
	t.Run("the embedded policy is good", func(t *testing.T) {
		t.Parallel()
		r, err := Test(t.Context(), "", "")
		if err != nil || !r.OK() || r.Cases != len(defaultSource(t).Cases) || r.Probes < 1000 {
			t.Errorf("%+v, error %v", r, err)
		}
	})
	t.Run("all faults are reported", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS("../../policy")); err != nil {
			t.Fatal(err)
		}
		src := edit(t, defaultSource(t), `"ssn": "hide",`, `"ssn": "reveal",`)
		src = edit(t, src, `"mfa": "done", "grant": true}`, `"mfa": "none", "grant": true}`)
		write(t, filepath.Join(dir, FileName), src.Rego)
		r, err := Test(t.Context(), dir, "")
		if err != nil {
			t.Fatal(err)
		}
		if r.OK() || !strings.Contains(r.Broken, "second factor") || len(r.Failures) < 2 {
			t.Errorf("got %+v", r)
		}
		if s := r.String(); !strings.Contains(s, "REFUSED") || !strings.Contains(s, "FAILED cases/nurse_patient.yaml") {
			t.Errorf("the report says:\n%s", s)
		}
	})
	t.Run("a file that does not compile is an error", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "x.rego")
		write(t, path, []byte("package medirecord\n\ndecision := {"))
		if _, err := Test(t.Context(), path, ""); err == nil {
			t.Error("no error")
		}
	})
}
