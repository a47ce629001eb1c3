// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"strings"
	"testing"

	"github.com/medirecord/medirecord/internal/med"
)

// Whatever words a question is made of, there is an answer; and one that allows
// stands on words that exist, and breaks no compiled rule.
func FuzzDecide(f *testing.F) {
	f.Add("nurse", "fresh", false, false, "read", "patient", "", "same_practice", false, "normal", "live", "")
	f.Add("break_glass", "done", true, false, "read", "record", "claim", "other_practice", true, "restricted", "", "own")
	f.Add("patient", "", false, true, "own", "export", "observation", "self", false, "normal", "live", "other")
	f.Add("admin,officer", "fresh", true, true, "bulk", "export", "", "same_practice", true, "psychotherapy", "deleted", "other")
	f.Add("service:import,clinician", "fresh", false, false, "import", "record", "claim", "same_practice", false, "", "", "")
	f.Add("NURSE", "Fresh", true, true, "read\x00", "patient ", "röntgen", "treating", true, "fine", "undead", "mine")
	engines := []*Engine{compiled(f, defaultSource(f)), compiled(f, hospitalSource(f))}
	f.Fuzz(func(t *testing.T, roles, mfa string, grant, reason bool, action, resource, kind, relation string, treating bool, sensitivity, state, authorship string) {
		in := Input{
			Subject: Subject{MFA: med.MFA(mfa), Grant: grant, ReasonGiven: reason}, Action: action,
			Resource: Resource{
				Type: resource, Kind: med.Kind(kind), Relation: med.Relation(relation), Treating: treating,
				Sensitivity: med.Sensitivity(sensitivity), State: state, Authorship: authorship,
			},
		}
		for r := range strings.SplitSeq(roles, ",") {
			in.Subject.Roles = append(in.Subject.Roles, med.Role(r))
		}
		for _, e := range engines {
			d, err := e.Decide(t.Context(), in)
			if err != nil {
				t.Fatal(err)
			}
			if d.Reason == "" || d.Reason == reasonInvariant || !d.Allow && len(d.View)+len(d.Write) > 0 {
				t.Errorf("%s: %+v", in.normal(), d)
			}
			if d.Allow {
				mustBeKnown(t, &in, &d)
			}
		}
	})
}

// mustBeKnown fails if a yes stands on a word that does not exist.
func mustBeKnown(t *testing.T, in *Input, d *med.Decision) {
	t.Helper()
	if questionOf(in.Resource.Type, in.Action) == 0 {
		t.Errorf("%q of %q is allowed, which nobody can ask", in.Action, in.Resource.Type)
	}
	known := slices.ContainsFunc(in.Subject.Roles, func(r med.Role) bool {
		return r == "provider" || slices.Contains(roleWords, r)
	})
	if !known {
		t.Errorf("%q are allowed, who are nobody", in.Subject.Roles)
	}
	f := in.normal()
	if words, bad := broken(f, d); bad {
		t.Errorf("%s breaks %q", f, words)
	}
	// An unknown word has the most closed meaning: written out, the answer is the same.
	if again := f.input(); again.normal() != f {
		t.Errorf("%s is not in normal form", f)
	}
	if !slices.Contains(relationWords, in.Resource.Relation) && f.relation != relationOther {
		t.Errorf("the relation %q is taken for %s", in.Resource.Relation, relationWords[f.relation])
	}
	if f.relation == relationOther && questions[f.question].clinical && !f.grant {
		t.Errorf("%s reaches another practice without a grant", f)
	}
	if f.roles.has(isOfficer) && f.relation != relationSelf && showsAny(d.View, clinicalFields) {
		t.Errorf("%s shows an officer clinical data", f)
	}
}
