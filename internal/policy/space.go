// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"strings"

	"github.com/medirecord/medirecord/internal/med"
)

// space lists all that one role alone can ask with a question, in normal form,
// without what the compiled rules deny whatever a file says.
func space(role roleSet, number uint8) []facts {
	q := &questions[number]
	all := []facts{{roles: role, question: number, state: stateLive}}
	vary := func(applies bool, n int, set func(*facts, uint8)) {
		if !applies {
			return
		}
		var more []facts
		for _, f := range all {
			for v := range uint8(n) { //nolint:gosec // the lists are short
				g := f
				set(&g, v)
				more = append(more, g)
			}
		}
		all = more
	}
	person := !role.has(services)
	vary(true, len(relationWords), func(f *facts, v uint8) { f.relation = v })
	vary(person, len(mfaWords), func(f *facts, v uint8) { f.mfa = v })
	vary(person && q.grant, 2, func(f *facts, v uint8) { f.grant = v == 1 })
	vary(person && q.treating, 2, func(f *facts, v uint8) { f.treating = v == 1 })
	vary(person && (q.treating || q.reason), 2, func(f *facts, v uint8) { f.reason = v == 1 })
	vary(q.kind, len(kindWords), func(f *facts, v uint8) { f.kind = v })
	vary(q.sensitivity, len(sensitivityWords), func(f *facts, v uint8) { f.sensitivity = v })
	vary(q.state, len(stateWords), func(f *facts, v uint8) { f.state = v })
	vary(q.authorship, len(authorshipWords), func(f *facts, v uint8) { f.authorship = v })
	return slices.DeleteFunc(all, func(f facts) bool {
		in := f.input()
		return in.normal() != f || deniedAnyway(f)
	})
}

// deniedAnyway says whether the compiled rules deny the question however little
// an answer would show.
func deniedAnyway(f facts) bool {
	_, bad := broken(f, &med.Decision{Allow: true, Notify: []string{"officer"}})
	return bad
}

// input is a question that has this normal form.
func (f facts) input() Input {
	q := &questions[f.question]
	in := Input{Action: q.action, Subject: Subject{MFA: mfaWords[f.mfa], Grant: f.grant, ReasonGiven: f.reason}}
	in.Subject.Roles = f.roles.list()
	in.Resource = Resource{
		Type: q.resource, Kind: kindWords[f.kind], Relation: relationWords[f.relation], Treating: f.treating,
		Sensitivity: sensitivityWords[f.sensitivity], State: stateWords[f.state], Authorship: authorshipWords[f.authorship],
	}
	return in
}

func (s roleSet) list() []med.Role {
	var roles []med.Role
	for i, r := range roleWords {
		if s.has(1 << i) {
			roles = append(roles, r)
		}
	}
	return roles
}

// dimension is one of the things that an answer can turn on.
type dimension func(facts) string

// dimensions are told in this order.
var dimensions = []dimension{
	func(f facts) string { return string(relationWords[f.relation]) },
	func(f facts) string { return either(f.grant, "with a grant", "without a grant") },
	func(f facts) string { return either(f.treating, "treating", "not treating") },
	func(f facts) string { return either(f.reason, "with a reason", "without a reason") },
	func(f facts) string { return "mfa " + string(mfaWords[f.mfa]) },
	func(f facts) string { return string(sensitivityWords[f.sensitivity]) },
	func(f facts) string { return stateWords[f.state] },
	func(f facts) string { return "author " + authorshipWords[f.authorship] },
	func(f facts) string { return either(f.kind > 0, "kind "+string(kindWords[f.kind]), noKind) },
}

// noKind is an export of the patient itself, or a record of an unknown kind.
const noKind = "no kind"

func either(yes bool, a, b string) string {
	if yes {
		return a
	}
	return b
}

// tell says in as few lines as it finds which part of the whole the questions
// are. What does not matter is left out; all of them are "always".
func tell(part, whole []facts) []string {
	var lines []string
	for _, block := range blocks(part, whole, dimensions) {
		words := strings.Join(block, ", ")
		if words == "" {
			words = "always"
		}
		lines = append(lines, words)
	}
	return lines
}

// blocks splits the questions into blocks that a list of values for each
// dimension describes.
func blocks(part, whole []facts, dims []dimension) [][]string {
	if len(part) == len(whole) {
		return [][]string{nil}
	}
	if len(dims) == 0 {
		return nil // cannot be: the dimensions tell all questions apart
	}
	values := func(of []facts) []string {
		var seen []string
		for _, f := range of {
			if v := dims[0](f); !slices.Contains(seen, v) {
				seen = append(seen, v)
			}
		}
		return seen
	}
	// Values with the same rest go together.
	var out [][]string
	rests := map[string]int{} // the rest, as text -> its place in merged
	type merged struct {
		names []string
		rest  [][]string
	}
	var groups []merged
	all := values(whole)
	for _, v := range all {
		under := func(of []facts) []facts {
			var some []facts
			for _, f := range of {
				if dims[0](f) == v {
					some = append(some, f)
				}
			}
			return some
		}
		p := under(part)
		if len(p) == 0 {
			continue
		}
		rest := blocks(p, under(whole), dims[1:])
		key := strings.Join(flat(rest), ";")
		if i, ok := rests[key]; ok {
			groups[i].names = append(groups[i].names, v)
			continue
		}
		rests[key] = len(groups)
		groups = append(groups, merged{[]string{v}, rest})
	}
	for _, g := range groups {
		for _, r := range g.rest {
			if len(g.names) < len(all) {
				r = append([]string{orOf(g.names, all)}, r...)
			}
			out = append(out, r)
		}
	}
	return out
}

func flat(lists [][]string) []string {
	var out []string
	for _, l := range lists {
		out = append(out, strings.Join(l, ","))
	}
	return out
}

// orOf joins alternatives, and says a first word that they share only once:
// mfa done or fresh. Of many kinds it says which are not meant.
func orOf(names, all []string) string {
	others := slices.DeleteFunc(slices.Clone(all), func(name string) bool {
		return name == noKind || slices.Contains(names, name)
	})
	if len(names) > 2*len(others) && strings.HasPrefix(names[0], "kind ") {
		if len(others) == 0 {
			return "every kind"
		}
		return "every kind but " + strings.ReplaceAll(strings.Join(others, " and "), "kind ", "")
	}
	first, _, _ := strings.Cut(names[0], " ")
	words := []string{names[0]}
	for _, name := range names[1:] {
		if slices.Contains([]string{"mfa", "author", "kind"}, first) {
			name = strings.TrimPrefix(name, first+" ")
		}
		words = append(words, name)
	}
	return strings.Join(words, " or ")
}
