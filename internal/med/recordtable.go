// SPDX-License-Identifier: Apache-2.0

package med

import "slices"

// RecordCells is how many sorts of record a policy can tell apart: by kind,
// sensitivity and authorship.
const RecordCells = 12 * 3 * 3

// RecordCell returns the number of a sort of record. It reports false for a
// word that is none.
func RecordCell(k Kind, s Sensitivity, a Authorship) (int, bool) {
	kind, sensitivity, authorship := slices.Index(Kinds, k), slices.Index(Sensitivities, s), slices.Index(Authorships, a)
	if kind < 0 || sensitivity < 0 || authorship < 0 {
		return 0, false
	}
	return (kind*len(Sensitivities)+sensitivity)*len(Authorships) + authorship, true
}

// RecordTable is what the policy says of each sort of record. What it was not
// told is denied; so is everything by the nil table.
type RecordTable struct {
	cells     [RecordCells]uint8 // place in decisions, from 1
	decisions []Decision
}

// Decide gives the sorts of record their decision. A number that is no sort is
// left out.
func (t *RecordTable) Decide(d Decision, cells ...uint32) {
	if len(t.decisions) == RecordCells {
		return // no honest table has more decisions than sorts
	}
	t.decisions = append(t.decisions, d)
	for _, c := range cells {
		if c < RecordCells {
			t.cells[c] = uint8(len(t.decisions)) //nolint:gosec // at most RecordCells
		}
	}
}

// Of returns the decision on one sort of record. Sensitivity that is not known
// counts as restricted.
func (t *RecordTable) Of(k Kind, s Sensitivity, a Authorship) Decision {
	if !slices.Contains(Sensitivities, s) {
		s = SensitivityRestricted
	}
	c, ok := RecordCell(k, s, a)
	if t == nil || !ok || t.cells[c] == 0 {
		return Decision{}
	}
	return t.decisions[t.cells[c]-1]
}
