// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/medirecord/medirecord/internal/med"
)

// embedded is the default policy, compiled once for all tests: an Engine is
// safe to share.
var embedded = sync.OnceValues(func() (Source, error) { return Embedded() })

func defaultSource(t testing.TB) Source {
	t.Helper()
	src, err := embedded()
	if err != nil {
		t.Fatal(err)
	}
	return src
}

func compiled(t testing.TB, src Source) *Engine {
	t.Helper()
	e, err := compile(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func mustDecide(t testing.TB, e *Engine, in Input) med.Decision {
	t.Helper()
	d, err := e.Decide(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestTheDefaultPolicyLoads(t *testing.T) {
	t.Parallel()
	src := defaultSource(t)
	if len(src.Cases) < 200 {
		t.Errorf("%d cases are embedded, want the whole table", len(src.Cases))
	}
	e, err := Load(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	if len(e.Revision()) != 12 {
		t.Errorf("revision %q, want 12 hexadecimal digits", e.Revision())
	}
}

// The table of the rules, cell by cell: r reveal, m mask, h hide, in the order
// patient (self), nurse, clinician, admin, break_glass, officer.
func TestViewsOfAPatient(t *testing.T) {
	t.Parallel()
	table := map[med.Field]string{
		"mrn": "rrrrrh", "name": "rrrrrh", "sex": "rrrrrh", "address": "rrrrrh", "phone": "rrrrrh", "email": "rrrrrh", "deceased_at": "rrrrrh",
		"dob": "mrrrrh", "ssn": "mhrrrh", "insurance": "rhrrrh", "diagnosis": "hrrrrh", "sensitivity": "hrrrrh",
	}
	if len(table) != len(med.PatientFields) {
		t.Fatalf("the table has %d fields, want %d", len(table), len(med.PatientFields))
	}
	columns := []Input{
		ask("read", "patient", med.RelationSelf, med.RolePatient),
		ask("read", "patient", med.RelationSamePractice, med.RoleNurse),
		ask("read", "patient", med.RelationSamePractice, med.RoleClinician),
		ask("read", "patient", med.RelationSamePractice, med.RoleAdmin),
		ask("read", "patient", med.RelationOtherPractice, med.RoleBreakGlass),
		ask("read", "patient", med.RelationSamePractice, med.RoleOfficer),
	}
	columns[4].Subject.Grant = true
	e := compiled(t, defaultSource(t))
	for i, in := range columns {
		d := mustDecide(t, e, in)
		if want := in.Subject.Roles[0] != med.RoleOfficer; d.Allow != want {
			t.Errorf("%s: allow is %v, want %v", in.Subject.Roles[0], d.Allow, want)
		}
		for field, row := range table {
			want := map[byte]med.Show{'r': med.Reveal, 'm': med.Mask, 'h': med.Hide}[row[i]]
			if got := d.View[field]; got != want {
				t.Errorf("%s, %s: %s, want %s", in.Subject.Roles[0], field, got, want)
			}
		}
	}
}

func TestKindsOfRecord(t *testing.T) {
	t.Parallel()
	e := compiled(t, defaultSource(t))
	forPatients := map[med.Kind]bool{"observation": true, "medication": true, "allergy": true, "immunization": true, "procedure": true}
	for _, kind := range med.Kinds {
		want := map[med.Role]bool{
			med.RolePatient: forPatients[kind], med.RoleNurse: kind != med.KindClaim, med.RoleClinician: true,
			med.RoleAdmin: true, med.RoleBreakGlass: true, med.RoleOfficer: false,
		}
		for role, allow := range want {
			in := ask("read", "record", med.RelationSamePractice, role)
			in.Resource.Kind = kind
			in.Subject.Grant = role == med.RoleBreakGlass
			if role == med.RolePatient {
				in.Resource.Relation = med.RelationSelf
			}
			if d := mustDecide(t, e, in); d.Allow != allow {
				t.Errorf("%s reads %s: %v (%s), want %v", role, kind, d.Allow, d.Reason, allow)
			}
		}
	}
}

func TestWhatIsNotSaidIsClosed(t *testing.T) {
	t.Parallel()
	e := compiled(t, defaultSource(t))
	good := ask("read", "record", med.RelationSamePractice, med.RoleNurse)
	if d := mustDecide(t, e, good); !d.Allow {
		t.Fatalf("the whole question is denied: %s", d.Reason)
	}
	changes := map[string]func(*Input){
		"no role":                 func(in *Input) { in.Subject.Roles = nil },
		"an unknown role":         func(in *Input) { in.Subject.Roles = []med.Role{"janitor"} },
		"a role in capitals":      func(in *Input) { in.Subject.Roles = []med.Role{"NURSE"} },
		"no second factor":        func(in *Input) { in.Subject.MFA = "" },
		"an unknown factor":       func(in *Input) { in.Subject.MFA = "sure" },
		"no action":               func(in *Input) { in.Action = "" },
		"an unknown action":       func(in *Input) { in.Action = "peek" },
		"an unknown resource":     func(in *Input) { in.Resource.Type = "records" },
		"no relation":             func(in *Input) { in.Resource.Relation = "" },
		"an unknown relation":     func(in *Input) { in.Resource.Relation = "treating" },
		"no sensitivity":          func(in *Input) { in.Resource.Sensitivity = "" },
		"an unknown sensitivity":  func(in *Input) { in.Resource.Sensitivity = "fine" },
		"no kind":                 func(in *Input) { in.Resource.Kind = "" },
		"an unknown kind":         func(in *Input) { in.Resource.Kind = "xray" },
		"an unknown state":        func(in *Input) { in.Resource.State = "undead" },
		"a service beside a role": func(in *Input) { in.Subject.Roles = append(in.Subject.Roles, RoleImport) },
	}
	for name, change := range changes {
		t.Run(name+" is denied", func(t *testing.T) {
			t.Parallel()
			in := good
			in.Subject.Roles = []med.Role{med.RoleNurse}
			change(&in)
			if d := mustDecide(t, e, in); d.Allow || len(d.View) > 0 || d.Reason == "" {
				t.Errorf("got %+v", d)
			}
		})
	}
	t.Run("the order and number of roles does not matter", func(t *testing.T) {
		t.Parallel()
		a, b := good, good
		a.Subject.Roles = []med.Role{"provider", med.RoleNurse, med.RoleNurse}
		b.Subject.Roles = []med.Role{med.RoleNurse, "janitor", med.RoleClinician}
		if a.normal() != b.normal() {
			t.Errorf("%s is not %s", a.normal(), b.normal())
		}
	})
	t.Run("a grant is known to reads of patients and records only", func(t *testing.T) {
		t.Parallel()
		for i := range questions {
			q := &questions[i]
			in := ask(q.action, q.resource, med.RelationOtherPractice, med.RoleBreakGlass)
			in.Subject.Grant = true
			want := q.action == "read" && (q.resource == "patient" || q.resource == "record")
			if got := in.normal().grant; got != want {
				t.Errorf("%s %s: %v, want %v", q.action, q.resource, got, want)
			}
		}
	})
}

// everyRoleSet calls f for each set of human roles and each question about
// clinical data or the trail.
func everyRoleSet(f func(set roleSet, in func(roleSet) facts, name string)) {
	asks := []facts{}
	for i := range questions {
		q := &questions[i]
		if !q.clinical && q.resource != "audit" {
			continue
		}
		base := facts{question: uint8(i), mfa: 1, state: stateLive, sensitivity: sensitivityNormal} //nolint:gosec // a short list
		if q.kind {
			base.kind = 2
		}
		asks = append(asks, inEveryRelation([]facts{base})...)
		if q.grant {
			base.grant = true
			asks = append(asks, inEveryRelation([]facts{base})...)
		}
	}
	for _, a := range asks {
		for set := roleSet(1); set <= isPatient|staff; set++ {
			f(set, func(s roleSet) facts { b := a; b.roles = s; return b }, a.String())
		}
	}
}

func TestRemovingARoleNeverWidens(t *testing.T) {
	t.Parallel()
	e := compiled(t, defaultSource(t))
	answers := map[facts]med.Decision{}
	decide := func(f facts) med.Decision {
		d, ok := answers[f]
		if !ok {
			var err error
			if d, err = e.decide(t.Context(), f); err != nil {
				t.Fatal(err)
			}
			answers[f] = d
		}
		return d
	}
	everyRoleSet(func(set roleSet, in func(roleSet) facts, name string) {
		// An officer must not hold another working role: such callers get
		// nothing, so that losing one of the two gives them the other back.
		if set.has(isOfficer) && set.has(staff&^isOfficer) {
			if d := decide(in(set)); d.Allow && in(set).relation != relationSelf {
				t.Errorf("%s: an officer with another role is allowed", in(set))
			}
			return
		}
		all := decide(in(set))
		for bit := roleSet(1); bit <= isBreakGlass; bit <<= 1 {
			if !set.has(bit) || set == bit {
				continue
			}
			fewer := in(set &^ bit)
			if wider := widerThan(decide(fewer), all); wider != "" {
				t.Errorf("%s: without one of %s it is wider: %s", fewer, in(set), wider)
			}
		}
	})
}

// widerThan says in which way a is wider than b, or "".
func widerThan(a, b med.Decision) string {
	if !a.Allow {
		return ""
	}
	if !b.Allow {
		return "allowed"
	}
	for field, show := range a.View {
		if show > b.View[field] {
			return fmt.Sprintf("%s %s", field, show)
		}
	}
	for field := range a.Write {
		if !b.Write[field] {
			return "write " + string(field)
		}
	}
	return ""
}

func TestTheirOwnRecordIsTheSameForEverybody(t *testing.T) {
	t.Parallel()
	e := compiled(t, defaultSource(t))
	patient := mustDecide(t, e, ask("read", "patient", med.RelationSelf, med.RolePatient))
	for set := roleSet(1); set <= isPatient|staff; set++ {
		f := facts{roles: set, mfa: mfaFresh, question: 1, relation: relationSelf, state: stateLive, sensitivity: sensitivityNormal}
		d, err := e.decide(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(patient, d); diff != "" {
			t.Errorf("%s (-patient +got):\n%s", f, diff)
		}
	}
}

func TestNobodyWritesWhatTheyDoNotSee(t *testing.T) {
	t.Parallel()
	e := compiled(t, defaultSource(t))
	for i := range questions {
		if questions[i].action != "update" {
			continue
		}
		for set := roleSet(1); set <= isPatient|staff; set++ {
			f := facts{roles: set, mfa: mfaFresh, question: uint8(i), relation: relationSame, state: stateLive, sensitivity: sensitivityNormal, kind: 2} //nolint:gosec // a short list
			d, err := e.decide(t.Context(), f)
			if err != nil {
				t.Fatal(err)
			}
			for field := range d.Write {
				if d.View[field] != med.Reveal {
					t.Errorf("%s writes %s, which is %s", f, field, d.View[field])
				}
			}
		}
	}
}

// Not parallel: it counts allocations.
func TestDecisionsAreRemembered(t *testing.T) {
	e := compiled(t, defaultSource(t))
	in := ask("read", "patient", med.RelationSamePractice, med.RoleNurse, med.RoleAdmin)
	first, second := mustDecide(t, e, in), mustDecide(t, e, in)
	if diff := cmp.Diff(first, second); diff != "" {
		t.Errorf("the second answer differs:\n%s", diff)
	}
	n := testing.AllocsPerRun(100, func() { _, _ = e.Decide(t.Context(), in) })
	if n != 0 {
		t.Errorf("a remembered answer takes %v allocations, want none", n)
	}
	t.Run("the memory is bounded", func(t *testing.T) {
		f := in.normal()
		s := &e.cache[f.shard()]
		s.mu.Lock()
		for i := range shardLimit {
			s.answers[facts{question: uint8(i), kind: uint8(i >> 8), roles: 1 << 15}] = answer{} //nolint:gosec // only to fill
		}
		delete(s.answers, f)
		s.mu.Unlock()
		if d := mustDecide(t, e, in); !d.Allow {
			t.Errorf("denied: %s", d.Reason)
		}
		if len(s.answers) != 1 {
			t.Errorf("%d answers are kept after a full shard, want 1", len(s.answers))
		}
	})
}

func TestAQuestionThatTakesTooLongIsDenied(t *testing.T) {
	t.Parallel()
	e := compiled(t, Source{Name: "slow.rego", Rego: slowPolicy(t)})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	d, err := e.Decide(ctx, ask("read", "patient", med.RelationSamePractice, med.RoleNurse))
	if err == nil || d.Allow {
		t.Errorf("got %+v and error %v, want a denial and an error", d, err)
	}
}

// slowPolicy counts to a hundred million.
func slowPolicy(t testing.TB) []byte {
	t.Helper()
	return []byte(`package medirecord

digits := {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}

many := count([1 | some a in digits; some b in digits; some c in digits; some d in digits; some e in digits; some f in digits; some g in digits; some h in digits])

decision := {"allow": many > 0, "reason_code": "slow", "fields": {}, "write": {}, "obligations": {"notify": [], "max_rows": 0}}
`)
}
