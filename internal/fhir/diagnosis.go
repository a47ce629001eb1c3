// SPDX-License-Identifier: Apache-2.0

package fhir

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/medirecord/medirecord/internal/med"
)

// Diagnosis is the diagnosis line of a patient: what the active conditions are
// called, each once, newest onset first, joined with "; ". Conditions without
// an onset come last, equal ones by name, so the same records in any order
// give the same line. Sensitive conditions are not in it: who may read the line
// may not therefore read them (rules.md section 2).
func Diagnosis(records []med.Record) med.PHI {
	type line struct {
		name  string
		onset time.Time
	}
	var lines []line
	for _, r := range records {
		if !InDiagnosis(&r) {
			continue
		}
		if name := conditionName(r.Codes); name != "" {
			onset, _ := instant(r.Start.Reveal())
			lines = append(lines, line{name, onset})
		}
	}
	slices.SortFunc(lines, func(a, b line) int {
		return cmp.Or(b.onset.Compare(a.onset), strings.Compare(a.name, b.name))
	})
	var names []string
	for _, l := range lines {
		if !slices.Contains(names, l.name) {
			names = append(names, l.name)
		}
	}
	return phi(strings.Join(names, "; "))
}

// conditionName is the concept's text where it differs from the codings (it
// comes last and has no code), else the first display, else the first code.
func conditionName(codes []med.Code) string {
	if len(codes) == 0 {
		return ""
	}
	if last := codes[len(codes)-1]; last.Code == "" && last.Display != "" {
		return last.Display.Reveal()
	}
	for _, c := range codes {
		if c.Display != "" {
			return c.Display.Reveal()
		}
	}
	return codes[0].Code.Reveal()
}

// InDiagnosis reports whether a record belongs in the diagnosis line: a condition
// that is active, was not entered in error, and is open to whoever sees the line.
func InDiagnosis(r *med.Record) bool {
	return r.Kind == med.KindCondition && r.Active && !r.InError && med.Strictest(r.Sensitivity) == med.SensitivityNormal
}
