// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What a compiled rule forbids changes nothing: the last edit is not in the list.
func TestDiffSaysWhatChanges(t *testing.T) {
	t.Parallel()
	old := defaultSource(t)
	changed := edit(t, old, "\t\t\"ssn\": \"hide\",", "\t\t\"ssn\": \"mask\",")                                                           // nurses
	changed = edit(t, changed, `{"address": true, "phone": true, "email": true}`, `{"address": true, "dob": true}`)                       // nurses
	changed = edit(t, changed, `"hold": {"admin": "staff", "officer": "staff"}`, `"hold": {"admin": "staff"}`)                            // officers
	changed = edit(t, changed, `"bulk": {"admin": "staff"}`, `"bulk": {}`)                                                                // admins
	changed = edit(t, changed, `"prove": {"nurse": "staff", "clinician": "staff"`, `"prove": {"clinician": "practice", "nurse": "staff"`) // refused by a compiled rule
	before, after := compiled(t, old), compiled(t, changed)
	var got []string
	for number := 1; number < len(questions); number++ {
		if questions[number].resource == "record" { // thousands of answers, and nothing changed
			continue
		}
		for _, role := range []roleSet{isNurse, isClinician, isAdmin, isOfficer} {
			changes, err := diffQuestion(t.Context(), before, after, role, uint8(number)) //nolint:gosec // a short list
			if err != nil {
				t.Fatal(err)
			}
			for i := range changes {
				got = append(got, changes[i].String())
			}
		}
	}
	const want = `WIDER     nurse, read patient: see ssn: hide → mask (same_practice, without a grant)
WIDER     nurse, search patient: see ssn: hide → mask (same_practice)
WIDER     nurse, update patient: see ssn: hide → mask (always)
WIDER     nurse, update patient: write dob: no → yes (always)
narrower  nurse, update patient: write email, phone: yes → no (always)
narrower  admin, bulk export: may: yes → no (role) (live)
narrower  officer, hold retention: may: yes → no (role) (mfa done or fresh)`
	if diff := cmp.Diff(want, strings.Join(got, "\n")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
