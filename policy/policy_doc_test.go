// SPDX-License-Identifier: Apache-2.0

package policyfile_test

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/policy"
)

var update = flag.Bool("update", false, "write the tables of docs/policy.md anew")

const (
	page  = "../docs/policy.md"
	begin = "<!-- tables: go test ./policy -update -->\n"
	end   = "<!-- tables end -->\n"
)

// The tables of docs/policy.md are what the engine answers, not what somebody
// remembers of the policy file.
func TestTablesOfThePage(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := strings.Cut(string(text), begin)
	old, after, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatalf("%s has lost the marks of its tables", page)
	}
	want := tables(t)
	if old == want {
		return
	}
	if !*update {
		t.Fatalf("%s does not say what the policy does: run go test ./policy -update, and read the change\ngot:\n%s\nwant:\n%s", page, old, want)
	}
	if err := os.WriteFile(page, []byte(before+begin+want+end+after), 0o600); err != nil {
		t.Fatal(err)
	}
}

// The page says what of the policy is in use: the resources that the door and the
// sidecar's services ask about, and those that wait.
func TestThePageSaysWhatIsAsked(t *testing.T) {
	t.Parallel()
	src, err := policy.Embedded()
	if err != nil {
		t.Fatal(err)
	}
	e, err := policy.Load(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := e.Evaluate(t.Context(), "data.medirecord.permits", map[string]any{})
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("../internal/chart/*.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("the door's files: %d, %v", len(files), err)
	}
	asks := map[string]bool{"practice": true} // by services only, of whom the sidecar asks it
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`gate\.Ask\{[^}]*Resource: "([a-z_]+)"`).FindAllStringSubmatch(string(text), -1) {
			asks[m[1]] = true
		}
	}
	var asked, waiting []string
	for _, r := range slices.Sorted(maps.Keys(doc.(map[string]any))) {
		if asks[r] {
			asked = append(asked, "`"+r+"`")
		} else {
			waiting = append(waiting, "`"+r+"`")
		}
	}
	and := func(words []string) string {
		last := len(words) - 1
		return strings.Join(words[:last], ", ") + " and " + words[last]
	}
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	flat := strings.Join(strings.Fields(string(text)), " ")
	for _, want := range []string{"it says of " + and(asked) + ".", "What it says of " + and(waiting) + " waits for its routes."} {
		if !strings.Contains(flat, want) {
			t.Errorf("%s does not say %q", page, want)
		}
	}
}

// asker asks the built-in policy.
type asker struct {
	t *testing.T
	e *policy.Engine
}

func (a asker) decide(in policy.Input) med.Decision {
	a.t.Helper()
	d, err := a.e.Decide(context.Background(), in)
	if err != nil {
		a.t.Fatal(err)
	}
	return d
}

func tables(t *testing.T) string {
	t.Helper()
	src, err := policy.Embedded()
	if err != nil {
		t.Fatal(err)
	}
	e, err := policy.Load(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	a := asker{t, e}
	var b strings.Builder
	for _, s := range standings {
		a.fields(&b, s, "patient", med.PatientFields)
	}
	a.kinds(&b)
	for _, s := range standings {
		a.fields(&b, s, "record", med.RecordFields)
	}
	a.actions(&b)
	a.duties(&b)
	a.hospital(&b)
	return b.String() + "\n"
}

// best is the question a role asks at its best: of its own record or in its own
// practice, with a fresh second factor, and with a grant where it needs one.
func best(role med.Role, resource, action string) policy.Input {
	in := policy.Input{Subject: policy.Subject{Roles: []med.Role{role}, MFA: med.MFAFresh}, Action: action}
	in.Resource = policy.Resource{Type: resource, Relation: med.RelationSamePractice, Sensitivity: med.SensitivityNormal, State: policy.StateLive}
	switch role {
	case med.RolePatient:
		in.Resource.Relation = med.RelationSelf
	case med.RoleBreakGlass:
		in.Resource.Relation, in.Subject.Grant = med.RelationOtherPractice, true
	default: // staff, in their practice
	}
	return in
}

func head(b *strings.Builder, title, first string) {
	fmt.Fprintf(b, "\n### %s\n\n| %s |", title, first)
	for _, r := range med.Roles {
		fmt.Fprintf(b, " %s |", r)
	}
	fmt.Fprintf(b, "\n|---|%s\n", strings.Repeat("---|", len(med.Roles)))
}

func row(b *strings.Builder, name string, cell func(med.Role) string) {
	fmt.Fprintf(b, "| %s |", name)
	for _, r := range med.Roles {
		fmt.Fprintf(b, " %s |", cell(r))
	}
	b.WriteString("\n")
}

// standing is how a caller stands to the patient.
type standing struct {
	words    string
	relation med.Relation
	grant    bool
}

var standings = []standing{
	{"in the own practice", med.RelationSamePractice, false},
	{"in the own practice, with a grant", med.RelationSamePractice, true},
	{"in another practice, with a grant", med.RelationOtherPractice, true},
	{"in another practice", med.RelationOtherPractice, false},
	{"the own record", med.RelationSelf, false},
}

// fields tells what each role sees and writes of a patient or of an
// observation, which is the kind that most roles may touch.
func (a asker) fields(b *strings.Builder, s standing, resource string, fields []med.Field) {
	ask := func(r med.Role, action string) med.Decision {
		in := best(r, resource, action)
		in.Resource.Relation, in.Subject.Grant = s.relation, s.grant
		if resource == "record" {
			in.Resource.Kind = med.KindObservation
		}
		return a.decide(in)
	}
	if !slices.ContainsFunc(med.Roles, func(r med.Role) bool {
		return ask(r, "read").Allow || ask(r, "create").Allow || ask(r, "update").Allow
	}) {
		fmt.Fprintf(b, "\n### A %s, %s\n\nNobody sees or writes anything.\n", resource, s.words)
		return
	}
	head(b, "A "+resource+", "+s.words, "field")
	for _, f := range fields {
		row(b, string(f), func(r med.Role) string {
			cell := ask(r, "read").View[f].String()
			var writes []string
			for _, action := range []string{"create", "update"} {
				if ask(r, action).Write[f] {
					writes = append(writes, action)
				}
			}
			if len(writes) > 0 {
				cell += "; written by " + strings.Join(writes, ", ")
			}
			return cell
		})
	}
}

func (a asker) kinds(b *strings.Builder) {
	head(b, "Which records each role sees", "kind")
	for _, k := range med.Kinds {
		row(b, string(k), func(r med.Role) string {
			in := best(r, "record", "read")
			in.Resource.Kind = k
			if !a.decide(in).Allow {
				return "–"
			}
			in.Resource.Sensitivity = med.SensitivityRestricted
			if !a.decide(in).Allow {
				return "yes, but not restricted ones"
			}
			return "yes"
		})
	}
}

// actions lists every action that the policy file gives to anybody.
func (a asker) actions(b *strings.Builder) {
	doc, err := a.e.Evaluate(context.Background(), "data.medirecord.permits", map[string]any{})
	if err != nil {
		a.t.Fatal(err)
	}
	permits, _ := doc.(map[string]any)
	if len(permits) < 5 {
		a.t.Fatalf("got permits of %d resources, want the whole table", len(permits))
	}
	head(b, "Who may do what, and what it takes", "action")
	for _, resource := range slices.Sorted(maps.Keys(permits)) {
		of, _ := permits[resource].(map[string]any)
		for _, action := range slices.Sorted(maps.Keys(of)) {
			ways := map[med.Role]string{}
			for _, r := range med.Roles {
				if w := a.ways(r, resource, action); len(w) > 0 {
					ways[r] = strings.Join(w, "; ")
				}
			}
			if len(ways) > 0 { // else it is a service's
				row(b, resource+": "+action, func(r med.Role) string { return or(ways[r], "–") })
			}
		}
	}
	b.WriteString("\nServices, each with its own certificate or token:\n\n")
	for _, s := range []med.Role{policy.RoleImport, policy.RoleWorker, policy.RoleOperator} {
		var may []string
		for _, resource := range slices.Sorted(maps.Keys(permits)) {
			of, _ := permits[resource].(map[string]any)
			for _, action := range slices.Sorted(maps.Keys(of)) {
				if len(a.ways(s, resource, action)) > 0 {
					may = append(may, resource+" "+action)
				}
			}
		}
		fmt.Fprintf(b, "- `%s`: %s\n", s, strings.Join(may, ", "))
	}
}

// duties lists what comes with a yes.
func (a asker) duties(b *strings.Builder) {
	b.WriteString("\n### Duties\n\n| action | with | an officer is paged | longest list |\n|---|---|---|---|\n")
	for _, q := range policy.Questions() {
		var without []string
		for _, with := range []struct {
			word  string
			grant bool
		}{{"–", false}, {"a grant", true}} {
			var paged []string
			rows := 0
			for _, r := range med.Roles {
				for _, rel := range med.Relations {
					in := best(r, q.Resource, q.Action)
					in.Resource.Relation, in.Subject.Grant, in.Resource.Kind = rel, with.grant, ""
					if q.Resource == "record" {
						in.Resource.Kind = med.KindObservation
					}
					d := a.decide(in)
					rows = max(rows, d.MaxRows)
					if len(d.Notify) > 0 && !slices.Contains(paged, string(r)) {
						paged = append(paged, string(r))
					}
				}
			}
			if len(paged) == 0 && rows == 0 || with.grant && slices.Equal(paged, without) {
				continue // nothing to do, or nothing more than without the grant
			}
			without = paged
			longest := "–"
			if rows > 0 {
				longest = fmt.Sprint(rows)
			}
			if len(paged) > 0 {
				paged = []string{"asked by " + strings.Join(paged, ", ")}
			}
			fmt.Fprintf(b, "| %s: %s | %s | %s | %s |\n", q.Resource, q.Action, with.word, or(strings.Join(paged, ""), "–"), longest)
		}
	}
}

// hospital tells what hospital.rego shows to who does not treat the patient and
// says no reason.
func (a asker) hospital(b *strings.Builder) {
	src, err := policy.Read("builtin:hospital")
	if err != nil {
		a.t.Fatal(err)
	}
	e, err := policy.Load(a.t.Context(), src)
	if err != nil {
		a.t.Fatal(err)
	}
	h := asker{a.t, e}
	h.fields(b, standing{"under hospital.rego, in the own practice, not treating and without a reason", med.RelationSamePractice, false}, "patient", med.PatientFields)
	var asked []string
	for _, q := range policy.Questions() {
		for _, r := range med.Roles {
			in := best(r, q.Resource, q.Action)
			in.Resource.Relation, in.Resource.Authorship = med.RelationSamePractice, policy.AuthorshipOwnRecent
			if q.Resource == "record" {
				in.Resource.Kind = med.KindObservation
			}
			if q.Action == "restore" {
				in.Resource.State = policy.StateDeleted
			}
			if name := q.Resource + " " + q.Action; h.decide(in).Reason == "reason_required" && !slices.Contains(asked, name) {
				asked = append(asked, name)
			}
		}
	}
	fmt.Fprintf(b, "\nUntil they say why, these are refused with `reason_required`: %s. With a reason, and for who treats the patient, all is as above.\n", strings.Join(asked, ", "))
}

// ways says in which relation, and with how little, the role may.
func (a asker) ways(r med.Role, resource, action string) []string {
	var out []string
	words := map[med.Relation]string{
		med.RelationSelf: "own record", med.RelationSamePractice: "own practice", med.RelationOtherPractice: "another practice",
	}
	factors := map[med.MFA]string{med.MFANone: "", med.MFADone: " + MFA", med.MFAFresh: " + fresh MFA"}
	for _, rel := range med.Relations {
		for _, need := range []struct {
			mfa   med.MFA
			grant bool
		}{{med.MFANone, false}, {med.MFADone, false}, {med.MFAFresh, false}, {med.MFADone, true}} {
			if !a.somehow(r, resource, action, rel, need.mfa, need.grant) {
				continue
			}
			way := words[rel] + factors[need.mfa]
			if need.grant {
				way += " + grant"
			}
			out = append(out, way)
			break
		}
	}
	return out
}

// somehow tries what else the policy looks at: kind, state and authorship. Who
// may see records at all sees observations; the table of kinds tells the rest.
func (a asker) somehow(r med.Role, resource, action string, rel med.Relation, mfa med.MFA, grant bool) bool {
	for _, kind := range []med.Kind{"", med.KindObservation} {
		for _, state := range []string{policy.StateLive, policy.StateDeleted} {
			for _, author := range []string{policy.AuthorshipOwnRecent, policy.AuthorshipOther} {
				in := policy.Input{Subject: policy.Subject{Roles: []med.Role{r}, MFA: mfa, Grant: grant}, Action: action}
				in.Resource = policy.Resource{
					Type: resource, Kind: kind, Relation: rel, Sensitivity: med.SensitivityNormal, State: state, Authorship: author,
				}
				if a.decide(in).Allow {
					return true
				}
			}
		}
	}
	return false
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
