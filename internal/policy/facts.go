// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"

	"github.com/medirecord/medirecord/internal/med"
)

// Input is a question to the policy: few values and no ids. What is not said
// has the most closed meaning: no role, no second factor, another practice,
// restricted, somebody else's. Only the state is live when not said: a caller
// that has not read the row yet cannot know it, and row security hides deleted
// patients.
type Input struct {
	Subject  Subject
	Action   string
	Resource Resource
}

// Subject is who asks. A service has one role, service:import, service:worker
// or service:operator, and no other.
type Subject struct {
	Roles []med.Role
	MFA   med.MFA
	// Grant says that a break-glass grant for this patient is open.
	Grant bool
	// ReasonGiven says that a coded reason came with this access. It is what
	// the caller says; the policy may ask for it, and the trail keeps the code.
	ReasonGiven bool
}

// Resource is what is asked for.
type Resource struct {
	Type     string // patient, record, export, audit, disclosure, treatment, break_glass, keys, retention, report, alert, practice
	Kind     med.Kind
	Relation med.Relation
	// Treating says that the caller has to do with the care of this patient of
	// their practice: an encounter, an appointment, an assignment, an order, the
	// care team. The database knows; nobody else is believed.
	Treating    bool
	Sensitivity med.Sensitivity
	State       string // live, deleted
	// Authorship is own_recent, own or other. For the review of a grant it
	// says who opened it, for a bulk export who asked for it.
	Authorship string
}

// The roles of unattended work.
const (
	RoleImport   med.Role = "service:import"
	RoleWorker   med.Role = "service:worker"
	RoleOperator med.Role = "service:operator"
)

// The words of the states and of authorship.
const (
	StateLive    = "live"
	StateDeleted = "deleted"

	AuthorshipOwnRecent = "own_recent"
	AuthorshipOwn       = "own"
	AuthorshipOther     = "other"
)

// facts is a question in normal form. It is small, comparable and finite: it is
// the key of the cache and all that the policy file gets to see, so that a
// remembered answer cannot differ from a fresh one.
type facts struct {
	roles       roleSet
	mfa         uint8 // index into mfaWords, as are the rest
	question    uint8
	kind        uint8
	relation    uint8
	sensitivity uint8
	state       uint8
	authorship  uint8
	grant       bool
	treating    bool // in the same practice only, as is reason
	reason      bool
}

// roleSet has a bit for each role, in the order of roleWords.
type roleSet uint16

const (
	isPatient roleSet = 1 << iota
	isNurse
	isClinician
	isAdmin
	isOfficer
	isBreakGlass
	isImport
	isWorker
	isOperator

	services = isImport | isWorker | isOperator
	// staff is every role but the patient's: each access of theirs to clinical
	// data needs a second factor.
	staff = isNurse | isClinician | isAdmin | isOfficer | isBreakGlass
)

func (s roleSet) has(any roleSet) bool { return s&any != 0 }

// The words in normal form; the first of each is the most closed, except for
// states.
var (
	roleWords = []med.Role{
		med.RolePatient, med.RoleNurse, med.RoleClinician, med.RoleAdmin, med.RoleOfficer, med.RoleBreakGlass,
		RoleImport, RoleWorker, RoleOperator,
	}
	mfaWords         = []med.MFA{med.MFANone, med.MFADone, med.MFAFresh}
	kindWords        = append([]med.Kind{""}, med.Kinds...)
	relationWords    = []med.Relation{med.RelationOtherPractice, med.RelationSamePractice, med.RelationSelf}
	sensitivityWords = []med.Sensitivity{med.SensitivityRestricted, med.SensitivityNormal, med.SensitivityPsychotherapy}
	stateWords       = []string{StateDeleted, StateLive}
	authorshipWords  = []string{AuthorshipOther, AuthorshipOwn, AuthorshipOwnRecent}
)

const (
	mfaNone, mfaFresh              = 0, 2
	relationOther, relationSame    = 0, 1
	relationSelf                   = 2
	sensitivityNormal              = 1
	sensitivityPsychotherapy       = 2
	stateDeleted, stateLive        = 0, 1
	authorshipOther, authorshipOwn = 0, 1
)

// question is a resource and an action that can be asked about, and what else
// the policy is told when they are. What it is not told it cannot decide by:
// a grant, for one, exists only where it may open something.
type question struct {
	resource, action                            string
	grant, kind, sensitivity, state, authorship bool
	treating                                    bool // about one patient: who treats them may count, and why one asks
	reason                                      bool // why one asks may count; treating implies it
	secondPerson                                bool // not saying who asked or opened means: the caller did
	clinical, forOtherPractice                  bool // for the compiled rules
}

// questions lists all of them. The first is the one that nobody named; the most
// asked come next.
var questions = []question{
	{},
	{resource: "patient", action: "read", clinical: true, treating: true, grant: true, sensitivity: true, state: true},
	{resource: "record", action: "read", clinical: true, treating: true, grant: true, kind: true, sensitivity: true, state: true, authorship: true},
	{resource: "patient", action: "search", clinical: true, reason: true},
	{resource: "patient", action: "create", clinical: true},
	{resource: "patient", action: "import", clinical: true},
	{resource: "patient", action: "update", clinical: true, treating: true, sensitivity: true, state: true},
	{resource: "patient", action: "delete", clinical: true, treating: true, sensitivity: true, state: true},
	{resource: "patient", action: "restore", clinical: true, treating: true, sensitivity: true, state: true},
	{resource: "record", action: "create", clinical: true, treating: true, kind: true, sensitivity: true, state: true, authorship: true},
	{resource: "record", action: "import", clinical: true, kind: true, sensitivity: true, state: true, authorship: true},
	{resource: "record", action: "update", clinical: true, treating: true, kind: true, sensitivity: true, state: true, authorship: true},
	{resource: "record", action: "delete", clinical: true, treating: true, kind: true, sensitivity: true, state: true, authorship: true},
	{resource: "export", action: "own", clinical: true, kind: true, sensitivity: true, state: true},
	{resource: "export", action: "patient", clinical: true, treating: true, kind: true, sensitivity: true, state: true},
	{resource: "export", action: "bulk", clinical: true, kind: true, sensitivity: true, state: true, authorship: true, secondPerson: true},
	{resource: "audit", action: "read"},
	{resource: "audit", action: "prove"},
	{resource: "disclosure", action: "create"},
	{resource: "disclosure", action: "amend"},
	{resource: "disclosure", action: "read"},
	{resource: "treatment", action: "create"},
	{resource: "treatment", action: "read"},
	{resource: "treatment", action: "end"},
	{resource: "break_glass", action: "open", forOtherPractice: true},
	{resource: "break_glass", action: "open_by_header", forOtherPractice: true},
	{resource: "break_glass", action: "lookup", forOtherPractice: true},
	{resource: "break_glass", action: "read", forOtherPractice: true, authorship: true},
	{resource: "break_glass", action: "end", forOtherPractice: true, authorship: true},
	{resource: "break_glass", action: "review", authorship: true, secondPerson: true},
	{resource: "keys", action: "read"},
	{resource: "keys", action: "rotate"},
	{resource: "keys", action: "destroy"},
	{resource: "retention", action: "read"},
	{resource: "retention", action: "hold"},
	{resource: "retention", action: "release"},
	{resource: "retention", action: "approve"},
	{resource: "report", action: "read"},
	{resource: "report", action: "create"},
	{resource: "alert", action: "read"},
	{resource: "alert", action: "acknowledge"},
	{resource: "alert", action: "close"},
	{resource: "practice", action: "practice_add", forOtherPractice: true},
	{resource: "practice", action: "sweep", forOtherPractice: true},
}

// Question names a resource and an action that can be asked about.
type Question struct{ Resource, Action string }

// Questions lists all that can be asked about.
func Questions() []Question {
	var all []Question
	for i := 1; i < len(questions); i++ {
		all = append(all, Question{questions[i].resource, questions[i].action})
	}
	return all
}

// normal returns the question in normal form. Unknown words, and what the
// question does not look at, take one fixed meaning.
func (in *Input) normal() facts {
	f := facts{roles: rolesOf(in.Subject.Roles), question: questionOf(in.Resource.Type, in.Action)}
	q := &questions[f.question]
	f.mfa = wordOf(mfaWords, in.Subject.MFA)
	f.relation = wordOf(relationWords, in.Resource.Relation)
	f.grant = q.grant && in.Subject.Grant && f.relation != relationSelf
	if f.roles.has(services) {
		f.mfa, f.grant = mfaNone, false
		if f.relation == relationSelf { // a service has no record of its own
			f.relation = relationOther
		}
	}
	// Who asks of their own record or across practices is judged by that alone.
	if f.relation == relationSame && !f.roles.has(services) {
		f.treating = q.treating && in.Resource.Treating
		f.reason = (q.treating || q.reason) && in.Subject.ReasonGiven
	}
	if q.kind {
		f.kind = wordOf(kindWords, in.Resource.Kind)
	}
	if q.sensitivity {
		f.sensitivity = wordOf(sensitivityWords, in.Resource.Sensitivity)
	}
	f.state = stateLive
	if q.state && in.Resource.State != "" {
		f.state = wordOf(stateWords, in.Resource.State)
	}
	if q.authorship {
		f.authorship = authorshipOf(in.Resource.Authorship, q.secondPerson)
	}
	return f
}

// rolesOf drops roles that do not exist. A service that claims another role
// beside its own is nobody.
func rolesOf(roles []med.Role) roleSet {
	var set roleSet
	for _, r := range roles {
		if r == "provider" {
			r = med.RoleClinician
		}
		if i := slices.Index(roleWords, r); i >= 0 {
			set |= 1 << i
		}
	}
	if set.has(services) && set != isImport && set != isWorker && set != isOperator {
		return 0
	}
	return set
}

func questionOf(resource, action string) uint8 {
	if resource == "" && (action == "practice_add" || action == "sweep") {
		resource = "practice"
	}
	for i := 1; i < len(questions); i++ {
		if questions[i].action == action && questions[i].resource == resource {
			return uint8(i) //nolint:gosec // the list is short
		}
	}
	return 0
}

func authorshipOf(word string, secondPerson bool) uint8 {
	if secondPerson && word != AuthorshipOther {
		return authorshipOwn
	}
	return wordOf(authorshipWords, word)
}

// wordOf returns the place of a word, and the most closed one for an unknown.
func wordOf[T comparable](words []T, word T) uint8 {
	if i := slices.Index(words, word); i > 0 {
		return uint8(i) //nolint:gosec // the lists are short
	}
	return 0
}

// document is what the policy file sees as input.
func (f facts) document() map[string]any {
	q := &questions[f.question]
	roles := []any{}
	for i, r := range roleWords {
		if f.roles.has(1 << i) {
			roles = append(roles, string(r))
		}
	}
	return map[string]any{
		"subject": map[string]any{"roles": roles, "mfa": string(mfaWords[f.mfa]), "grant": f.grant, "reason_given": f.reason},
		"action":  q.action,
		"resource": map[string]any{
			"type":        q.resource,
			"kind":        string(kindWords[f.kind]),
			"relation":    string(relationWords[f.relation]),
			"treating":    f.treating,
			"sensitivity": string(sensitivityWords[f.sensitivity]),
			"state":       stateWords[f.state],
			"authorship":  authorshipWords[f.authorship],
		},
	}
}
