// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"context"
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/medirecord/medirecord/internal/med"
)

// reasonInvariant is the reason of a denial that the policy file did not give:
// it allowed what a compiled rule forbids.
const reasonInvariant = "invariant"

// invariant is a rule that no policy file can change. A file that breaks one is
// refused when it is loaded, and each decision is held against all of them
// again.
type invariant struct {
	words  string
	breaks func(f facts, q *question, d *med.Decision) bool // asked of allowed decisions only
}

var invariants = []invariant{
	{"what has no name gets nothing", func(f facts, _ *question, _ *med.Decision) bool {
		return f.question == 0 || f.roles == 0
	}},
	{"an officer gets no clinical data", func(f facts, q *question, d *med.Decision) bool {
		if !f.roles.has(isOfficer) || f.relation == relationSelf {
			return false
		}
		return q.clinical || showsAny(d.View, clinicalFields) || len(d.Write) > 0
	}},
	{"an officer holds no clinical role and is not an admin", func(f facts, _ *question, _ *med.Decision) bool {
		return f.roles.has(isOfficer) && f.roles.has(staff&^isOfficer) && f.relation != relationSelf
	}},
	{"another practice is reached by a grant only", func(f facts, q *question, d *med.Decision) bool {
		if f.relation != relationOther {
			return false
		}
		if q.forOtherPractice { // opening the glass, or nothing about patients: no data
			return len(d.View)+len(d.Write) > 0
		}
		return !f.grant
	}},
	{"a patient reaches only their own record", func(f facts, _ *question, _ *med.Decision) bool {
		return f.roles == isPatient && f.relation != relationSelf
	}},
	{"nobody reaches their own record but as its patient", func(f facts, q *question, d *med.Decision) bool {
		if f.relation != relationSelf {
			return false
		}
		asPatient := q.action == "read" || q.action == "search" || q.action == "own"
		return !asPatient || len(d.Write) > 0
	}},
	{"psychotherapy notes reach their author only", func(f facts, q *question, d *med.Decision) bool {
		if !q.kind || f.kind == 0 || f.sensitivity != sensitivityPsychotherapy || f.roles.has(services) {
			return false
		}
		return q.resource != "record" || f.authorship == authorshipOther || f.relation == relationSelf
	}},
	{"staff need a second factor for clinical data", func(f facts, q *question, _ *med.Decision) bool {
		return q.clinical && f.roles.has(staff) && f.mfa == mfaNone
	}},
	{"staff other than an officer need a second factor for the trail", func(f facts, q *question, _ *med.Decision) bool {
		return q.resource == "audit" && f.roles.has(staff&^isOfficer) && f.mfa == mfaNone
	}},
	{"staff need a second factor for disclosures", func(f facts, q *question, _ *med.Decision) bool {
		return q.resource == "disclosure" && f.roles.has(staff) && f.mfa == mfaNone
	}},
	{"break-glass needs a grant, reads only, and pages an officer", func(f facts, q *question, d *med.Decision) bool {
		if !q.clinical || !standsOnGrant(f) {
			return false
		}
		return !f.grant || q.action != "read" || len(d.Write) > 0 || !slices.Contains(d.Notify, "officer")
	}},
	{"a deleted patient is seen by an admin of the practice only, with a second factor", func(f facts, _ *question, _ *med.Decision) bool {
		return f.state == stateDeleted && !(f.roles.has(isAdmin) && f.mfa != mfaNone && f.relation == relationSame)
	}},
	{"an export of the own record needs a fresh second factor, a bulk export an admin and a second person", func(f facts, q *question, _ *med.Decision) bool {
		if q.resource != "export" {
			return false
		}
		return q.action == "own" && (f.mfa != mfaFresh || f.relation != relationSelf) ||
			q.action == "bulk" && (!f.roles.has(isAdmin) || f.authorship != authorshipOther)
	}},
	{"who opened a grant does not review it", func(f facts, q *question, _ *med.Decision) bool {
		return q.resource == "break_glass" && q.action == "review" && f.authorship != authorshipOther
	}},
	{"a service does its own work only and sees nothing", func(f facts, q *question, d *med.Decision) bool {
		if !f.roles.has(services) {
			return q.resource == "practice" || q.action == "import"
		}
		own := f.roles == isImport && (q.resource == "patient" || q.resource == "record") && (q.action == "create" || q.action == "import") ||
			f.roles == isOperator && q.action == "practice_add" ||
			f.roles == isWorker && q.action == "sweep"
		return !own || showsAny(d.View, clinicalFields)
	}},
	{"what is only read is not written", func(_ facts, q *question, d *med.Decision) bool {
		writes := q.action == "create" || q.action == "import" || q.action == "update"
		return !writes && len(d.Write) > 0
	}},
}

// standsOnGrant says whether nothing but a grant can have opened this.
func standsOnGrant(f facts) bool {
	if f.relation == relationSelf || f.roles.has(services) {
		return false
	}
	return f.relation == relationOther || f.roles&^isPatient == isBreakGlass
}

// broken returns the first invariant that the decision breaks.
func broken(f facts, d *med.Decision) (string, bool) {
	if !d.Allow {
		return "", false
	}
	q := &questions[f.question]
	for i := range invariants {
		if invariants[i].breaks(f, q, d) {
			return invariants[i].words, true
		}
	}
	return "", false
}

func showsAny(v med.View, fields []med.Field) bool {
	return slices.ContainsFunc(fields, func(f med.Field) bool { return v[f] != med.Hide })
}

// checkInvariants asks the policy a representative part of all questions and
// reports the first answer that breaks a compiled rule or makes no sense. What
// lies between the probes is caught when it is decided.
func (e *Engine) checkInvariants(ctx context.Context, questions []facts) error {
	const workers = 4
	errs := make([]error, len(questions))
	var first atomic.Int64 // the lowest question with a fault
	first.Store(int64(len(questions)))
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; int64(i) < first.Load(); i += workers {
				if errs[i] = e.checkInvariant(ctx, questions[i]); errs[i] != nil {
					lower(&first, int64(i))
				}
			}
		})
	}
	wg.Wait()
	return cmp.Or(errs...)
}

func lower(a *atomic.Int64, to int64) {
	for now := a.Load(); to < now && !a.CompareAndSwap(now, to); now = a.Load() {
	}
}

func (e *Engine) checkInvariant(ctx context.Context, f facts) error {
	d, err := e.evaluate(ctx, f)
	if err != nil {
		return fmt.Errorf("asked about %s: %w", f, err)
	}
	if words, bad := broken(f, &d); bad {
		return fmt.Errorf("breaks the compiled rule %q: it allows %s", words, f)
	}
	return nil
}

// subjects are the callers that probes are made for: every role alone, the
// pairs that could help each other, all roles at once, each service, nobody.
func subjects() []facts {
	sets := []roleSet{
		isPatient, isNurse, isClinician, isAdmin, isOfficer, isBreakGlass,
		isPatient | isNurse, isOfficer | isAdmin, isOfficer | isClinician, isClinician | isBreakGlass, isPatient | isBreakGlass, isPatient | staff,
	}
	all := []facts{{}, {roles: isImport}, {roles: isWorker}, {roles: isOperator}}
	for _, set := range sets {
		for _, mfa := range []uint8{mfaNone, mfaFresh} {
			all = append(all, facts{roles: set, mfa: mfa}, facts{roles: set, mfa: mfa, grant: true})
		}
	}
	return all
}

// probes lists the questions asked of a policy file before it is taken: those
// that a compiled rule has something to say about, and of the others one each
// for its form. All of them would be millions, and a changed file has to be in
// force within two seconds.
func probes() []facts {
	var all []facts
	for _, subject := range subjects() {
		for i := range questions {
			for _, f := range probesOf(subject, uint8(i)) { //nolint:gosec // the list is short
				if constrained(f) || bits.OnesCount16(uint16(f.roles)) == 1 {
					all = append(all, f)
				}
			}
		}
	}
	return all
}

// constrained says whether an answer that shows everything would break a
// compiled rule.
func constrained(f facts) bool {
	everything := med.Decision{Allow: true, View: med.View{}}
	for _, field := range clinicalFields {
		everything.View[field] = med.Reveal
	}
	_, bad := broken(f, &everything)
	return bad
}

// probesOf varies one thing at a time from the plain case, and adds the
// combinations on which a compiled rule turns.
func probesOf(subject facts, number uint8) []facts {
	q := &questions[number]
	several := bits.OnesCount16(uint16(subject.roles)) > 1
	if subject.grant && !q.grant || several && !q.clinical && q.resource != "audit" && q.resource != "disclosure" {
		return nil
	}
	f := subject
	f.question, f.state = number, stateLive
	if q.kind {
		f.kind = uint8(slices.Index(kindWords, med.KindObservation)) //nolint:gosec // the list is short
	}
	if q.sensitivity {
		f.sensitivity = sensitivityNormal
	}
	variants := []facts{f}
	vary := func(applies bool, change func(*facts)) {
		if applies && f.mfa == mfaFresh { // without a second factor the plain case is enough
			g := f
			change(&g)
			variants = append(variants, g)
		}
	}
	vary(q.kind, func(g *facts) { g.sensitivity = sensitivityPsychotherapy })
	vary(q.kind && q.authorship && !several, func(g *facts) { g.sensitivity, g.authorship = sensitivityPsychotherapy, authorshipOwn })
	vary(q.secondPerson, func(g *facts) { g.authorship = authorshipOwn })
	vary(q.state, func(g *facts) { g.state = stateDeleted })
	return inEveryRelation(variants)
}

func inEveryRelation(variants []facts) []facts {
	var out []facts
	for _, f := range variants {
		for relation := range uint8(len(relationWords)) { //nolint:gosec // three of them
			if relation == relationSelf && (f.grant || f.roles.has(services)) {
				continue // not in normal form
			}
			f.relation = relation
			out = append(out, f)
		}
	}
	return out
}

// String tells the question in words, for the text of a refusal.
func (f facts) String() string {
	q := &questions[f.question]
	var roles []string
	for i, r := range roleWords {
		if f.roles.has(1 << i) {
			roles = append(roles, string(r))
		}
	}
	who, what := strings.Join(roles, " + "), q.action+" "+q.resource
	if who == "" {
		who = "nobody"
	}
	if f.question == 0 {
		what = "an action without a name"
	}
	words := []string{who, "mfa " + string(mfaWords[f.mfa])}
	if f.grant {
		words = append(words, "with a grant")
	}
	words = append(words, what, string(relationWords[f.relation]))
	if f.treating {
		words = append(words, "treating")
	}
	if f.reason {
		words = append(words, "with a reason")
	}
	if q.kind && f.kind != 0 {
		words = append(words, string(kindWords[f.kind]))
	}
	if q.sensitivity {
		words = append(words, string(sensitivityWords[f.sensitivity]))
	}
	if q.state {
		words = append(words, stateWords[f.state])
	}
	if q.authorship {
		words = append(words, "author "+authorshipWords[f.authorship])
	}
	return strings.Join(words, ", ")
}
