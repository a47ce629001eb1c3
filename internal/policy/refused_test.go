// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/medirecord/medirecord/internal/med"
)

// edit returns the default policy with one passage changed everywhere.
func edit(t testing.TB, src Source, old, changed string) Source {
	t.Helper()
	if !bytes.Contains(src.Rego, []byte(old)) {
		t.Fatalf("the policy has no %q to change", old)
	}
	src.Rego = bytes.ReplaceAll(src.Rego, []byte(old), []byte(changed))
	return src
}

func TestAFileThatDoesNotCompileIsRefused(t *testing.T) {
	t.Parallel()
	plain := func(body string) string { return "package medirecord\n\n" + body + "\n" }
	files := map[string]struct{ text, want string }{
		"nothing":          {"", "does not compile"},
		"a syntax error":   {plain("decision := {"), "rego_parse_error"},
		"another package":  {"package authz\n\ndecision := {}\n", "package is not medirecord"},
		"no decision":      {plain("allow := true"), "no answer"},
		"the network":      {plain(`decision := http.send({"method": "get", "url": "http://localhost"})`), "http.send"},
		"a name lookup":    {plain(`decision := net.lookup_ip_addr("localhost")`), "net.lookup_ip_addr"},
		"the clock":        {plain(`decision := time.now_ns()`), "time.now_ns"},
		"randomness":       {plain(`decision := rand.intn("x", 2)`), "rand.intn"},
		"a uuid":           {plain(`decision := uuid.rfc4122("x")`), "uuid.rfc4122"},
		"the runtime":      {plain(`decision := opa.runtime()`), "opa.runtime"},
		"a token's clock":  {plain(`decision := io.jwt.decode_verify("x", {})`), "io.jwt.decode_verify"},
		"a long count":     {plain(`decision := numbers.range(1, 1000000000)`), "numbers.range"},
		"printing":         {plain("decision := 1 if trace(\"x\")"), "trace"},
		"an unused import": {plain("import data.x\n\ndecision := {}"), "unused"},
		"an unused name":   {plain("decision := {} if { x := 1 }"), "assigned var x unused"},
		"an unknown name":  {plain("decision := {\"allow\": allowed}"), "unsafe"},
	}
	for name, f := range files {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Load(t.Context(), Source{Name: "bad.rego", Rego: []byte(f.text)})
			if err == nil || !strings.Contains(err.Error(), f.want) || !strings.Contains(err.Error(), "bad.rego") {
				t.Errorf("error %v, want one about %q in bad.rego", err, f.want)
			}
		})
	}
}

func TestAnAnswerWithoutSenseIsRefused(t *testing.T) {
	t.Parallel()
	edits := map[string]struct{ old, changed, want string }{
		"a misspelt field":         {`"deceased_at": "reveal",`, `"deceasd_at": "reveal",`, `"deceasd_at", which does not exist`},
		"a misspelt word":          {`"dob": "mask"`, `"dob": "masked"`, "fields.dob is not reveal, mask or hide"},
		"a mask that is none":      {`"ssn": "mask",` + "\n\t\t" + `"insurance": "reveal"`, `"ssn": "mask",` + "\n\t\t" + `"insurance": "mask"`, "fields.insurance cannot be masked"},
		"a misspelt written field": {`{"address": true, "phone": true, "email": true}`, `{"telephone": true}`, `write names "telephone"`},
		"a number for allow":       {`"allow": allow,`, `"allow": count(standing),`, "allow is not true or false"},
		"a missing part":           {`"write": write,`, ``, "write is not an object"},
		"an additional part":       {`"write": write,`, `"write": write, "note": "x",`, `unknown part "note"`},
		"half a row":               {`max_rows := 200`, `max_rows := 0.5`, "max_rows"},
		"fewer rows than none":     {`max_rows := 200`, `max_rows := -1`, "max_rows"},
		"a reason in words":        {`"own_record" if`, `"their own record!" if`, "reason_code"},
		"two answers at once":      {"default max_rows := 0", "default max_rows := 0\n\nmax_rows := 5 if allow", "evaluating"},
	}
	for name, x := range edits {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			src := edit(t, defaultSource(t), x.old, x.changed)
			src.Cases = nil
			_, err := Load(t.Context(), src)
			if err == nil || !strings.Contains(err.Error(), x.want) {
				t.Errorf("error %v, want one about %q", err, x.want)
			}
		})
	}
}

// breakers are edits that an officer could make and that no policy may.
var breakers = map[string]struct {
	old, changed, rule string
	ask                func() Input // a question that shows it
}{
	"an officer who reads patients": {
		`"admin": "staff", "break_glass": "emergency"}`, `"admin": "staff", "officer": "staff", "break_glass": "emergency"}`,
		"an officer gets no clinical data",
		func() Input { return ask("read", "patient", med.RelationSamePractice, med.RoleOfficer) },
	},
	"an officer who is an admin": {
		"\tofficer_and_more\n\tnot own_record", "\tofficer_and_more\n\tfalse",
		"an officer holds no clinical role",
		func() Input { return ask("read", "audit", med.RelationSamePractice, med.RoleOfficer, med.RoleAdmin) },
	},
	"staff of every practice": {
		`"staff": {"relation": {"same_practice"}`, `"staff": {"relation": {"same_practice", "other_practice"}`,
		"another practice is reached by a grant only",
		func() Input { return ask("read", "patient", med.RelationOtherPractice, med.RoleNurse) },
	},
	"break-glass without a grant": {
		`"mfa": "done", "grant": true}`, `"mfa": "done", "grant": false}`,
		"break-glass needs a grant",
		func() Input { return ask("read", "patient", med.RelationOtherPractice, med.RoleBreakGlass) },
	},
	"patients who read each other": {
		`"own": {"relation": {"self"}, "mfa": "none"`, `"own": {"relation": {"self", "same_practice"}, "mfa": "none"`,
		"a patient reaches only their own record",
		func() Input { return ask("read", "patient", med.RelationSamePractice, med.RolePatient) },
	},
	"a patient who edits their record": {
		`"update": {"nurse": "staff", "clinician": "staff", "admin": "staff"}`, `"update": {"patient": "own", "nurse": "staff"}`,
		"nobody reaches their own record but as its patient",
		func() Input { return ask("update", "patient", med.RelationSelf, med.RolePatient) },
	},
	"psychotherapy notes for all": {
		`input.resource.authorship in {"own", "own_recent"}`, `input.resource.authorship in {"own", "own_recent", "other"}`,
		"psychotherapy notes reach their author only",
		func() Input {
			in := ask("read", "record", med.RelationSamePractice, med.RoleClinician)
			in.Resource.Sensitivity = med.SensitivityPsychotherapy
			return in
		},
	},
	"staff without a second factor": {
		`"staff": {"relation": {"same_practice"}, "mfa": "done"`, `"staff": {"relation": {"same_practice"}, "mfa": "none"`,
		"staff need a second factor for clinical data",
		func() Input {
			in := ask("read", "patient", med.RelationSamePractice, med.RoleNurse)
			in.Subject.MFA = med.MFANone
			return in
		},
	},
	"disclosures without a second factor": {
		`"read": {"patient": "own", "admin": "staff", "officer": "staff"},`, `"read": {"patient": "own", "admin": "staff", "officer": "practice"},`,
		"staff need a second factor for disclosures",
		func() Input {
			in := ask("read", "disclosure", med.RelationSamePractice, med.RoleOfficer)
			in.Subject.MFA = med.MFANone
			return in
		},
	},
	"the trail without a second factor": {
		`"admin": "staff", "officer": "practice"}`, `"admin": "practice", "officer": "practice"}`,
		"need a second factor for the trail",
		func() Input {
			in := ask("read", "audit", med.RelationSamePractice, med.RoleAdmin)
			in.Subject.MFA = med.MFANone
			return in
		},
	},
	"a grant that pages nobody": {
		`notify contains "officer" if grant_used`, `notify contains "nobody" if grant_used`,
		"pages an officer",
		func() Input {
			in := ask("read", "patient", med.RelationOtherPractice, med.RoleBreakGlass)
			in.Subject.Grant = true
			return in
		},
	},
	"break_glass that searches": {
		`"search": {"patient": "own_at_work", "nurse": "staff"`, `"search": {"break_glass": "staff", "patient": "own_at_work", "nurse": "staff"`,
		"break-glass needs a grant, reads only",
		func() Input { return ask("search", "patient", med.RelationSamePractice, med.RoleBreakGlass) },
	},
	"deleted patients for clinicians": {
		`role == "admin"` + "\n\t" + `input.action in {"read", "restore"}`, `role in {"admin", "clinician"}` + "\n\t" + `input.action in {"read", "restore"}`,
		"a deleted patient is seen by an admin",
		func() Input {
			in := ask("read", "patient", med.RelationSamePractice, med.RoleClinician)
			in.Resource.State = StateDeleted
			return in
		},
	},
	"an export with an old second factor": {
		`"own_fresh": {"relation": {"self"}, "mfa": "fresh"`, `"own_fresh": {"relation": {"self"}, "mfa": "none"`,
		"an export of the own record needs a fresh second factor",
		func() Input { return ask("own", "export", med.RelationSelf, med.RolePatient) },
	},
	"a bulk export by one person": {
		`"export": {"bulk"}}`, `"export": set()}`,
		"a second person",
		func() Input { return ask("bulk", "export", med.RelationSamePractice, med.RoleAdmin) },
	},
	"a review of one's own grant": {
		`{"break_glass": {"review"}, `, `{`,
		"who opened a grant does not review it",
		func() Input { return ask("review", "break_glass", med.RelationSamePractice, med.RoleAdmin) },
	},
	"an importer that reads": {
		`"read": {"patient": "own", "nurse"`, `"read": {"service:import": "unattended", "patient": "own", "nurse"`,
		"a service does its own work only",
		func() Input { return ask("read", "patient", med.RelationSamePractice, RoleImport) },
	},
	"writing by reading": {
		`may_write.patient.update.nurse :=`, `may_write.patient.read.nurse :=`,
		"what is only read is not written",
		func() Input { return ask("read", "patient", med.RelationSamePractice, med.RoleNurse) },
	},
	"everything for everybody": {
		`default allow := false`, `default allow := true`,
		"what has no name gets nothing",
		func() Input { return ask("peek", "patient", med.RelationSamePractice, med.RoleNurse) },
	},
}

func TestAFileThatBreaksACompiledRuleIsRefused(t *testing.T) {
	t.Parallel()
	for name, b := range breakers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			src := edit(t, defaultSource(t), b.old, b.changed)
			src.Cases = nil // the compiled rules alone must do it
			_, err := Load(t.Context(), src)
			if err == nil || !strings.Contains(err.Error(), "compiled rule") || !strings.Contains(err.Error(), b.rule) {
				t.Errorf("error %v, want one about %q", err, b.rule)
			}
		})
		t.Run(name+" is denied when asked", func(t *testing.T) {
			t.Parallel()
			e := compiled(t, edit(t, defaultSource(t), b.old, b.changed))
			if d := mustDecide(t, e, b.ask()); d.Allow || d.Reason != "invariant" || len(d.View)+len(d.Write) > 0 {
				t.Errorf("got %+v, want a denial by invariant", d)
			}
		})
	}
}

func TestEveryCompiledRuleIsBroken(t *testing.T) {
	t.Parallel()
	for _, inv := range invariants {
		found := false
		for _, b := range breakers {
			found = found || strings.Contains(inv.words, b.rule)
		}
		if !found {
			t.Errorf("no test breaks the compiled rule %q", inv.words)
		}
	}
}

func TestAFileThatFailsItsCasesIsRefused(t *testing.T) {
	t.Parallel()
	src := edit(t, defaultSource(t), `"ssn": "hide",`, `"ssn": "reveal",`)
	_, err := Load(t.Context(), src)
	for _, want := range []string{"fails its cases", "cases/nurse_patient.yaml", "A nurse never sees the SSN", "case 1", "ssn is reveal, expected hide"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
	src.Cases = nil
	if _, err := Load(t.Context(), src); err != nil {
		t.Errorf("without cases the same file is refused: %v", err)
	}
}

func TestASlowFileIsRefused(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := Load(ctx, Source{Name: "slow.rego", Rego: slowPolicy(t)}); err == nil {
		t.Error("a policy that never ends was taken")
	}
}
