// SPDX-License-Identifier: Apache-2.0

package fhir

import (
	"slices"
	"strings"

	"github.com/medirecord/medirecord/internal/med"
)

// errAltered refuses a resource that says it is not the whole truth. Imported,
// it would put masks and gaps over the full record.
var errAltered = refuse("the resource is masked, redacted or a subset, and must not be imported")

// alterations are the codes of v3-ObservationValue for such resources.
var alterations = []string{"SUBSETTED", "MASKED", "REDACTED", "ABSTRED", "AGGRED", "ANONYED", "PSEUDED"}

// labels is what Resource.meta says about handling.
type labels struct {
	sensitivity med.Sensitivity // normal, unless a label says otherwise
	labelled    bool            // meta.security says something of confidentiality or sensitivity
	altered     bool
}

// labelsOf reads a meta element.
func labelsOf(meta val) labels {
	l := labels{sensitivity: med.SensitivityNormal}
	for tag := range meta.get("tag").items() {
		l.altered = l.altered || altered(tag)
	}
	for label := range meta.get("security").items() {
		l.altered = l.altered || altered(label)
		s, says := sensitivity(label)
		l.labelled = l.labelled || says
		l.sensitivity = med.Strictest(l.sensitivity, s)
	}
	return l
}

// altered does not ask for the system: a copy that lost it is no less masked.
func altered(coding val) bool {
	return slices.Contains(alterations, strings.ToUpper(strings.TrimSpace(coding.get("code").str())))
}

// sensitivity reads one security label. What it does not know it takes for
// restricted, except in systems that speak of purpose and integrity only.
func sensitivity(label val) (s med.Sensitivity, says bool) {
	system := label.get("system").str()
	code := strings.ToUpper(strings.TrimSpace(label.get("code").str()))
	switch name := system[strings.LastIndexAny(system, "/:.")+1:]; {
	case name == "v3-ActReason" || name == "v3-ObservationValue":
		return med.SensitivityNormal, false
	case code == "PSYTHPN": // v3-ActCode: psychotherapy notes
		return med.SensitivityPsychotherapy, true
	case name == "v3-Confidentiality" || name == "Confidentiality" || strings.HasSuffix(system, "2.16.840.1.113883.5.25"):
		if slices.Contains([]string{"N", "L", "M", "U"}, code) {
			return med.SensitivityNormal, true
		}
	}
	return med.SensitivityRestricted, true
}

// masked says whether any element of the tree gives "masked" as the reason of
// its absence, as our own masked exports do.
func (d *doc) masked(from val) bool {
	if from.d == nil {
		return false
	}
	for i, end := from.i, from.node().next; i < end; i++ {
		n := &d.nodes[i]
		if n.kind != jsonString || d.name(i) != "valueCode" && d.name(i) != "code" {
			continue
		}
		v := val{d, i}
		if v.str() != "masked" {
			continue
		}
		// Only this code is ever asked for its neighbours: it is rare.
		if d.absentReason(i) {
			return true
		}
	}
	return false
}

// absentReason says whether node i is the code of a data-absent-reason: the
// extension's valueCode, or a coding of its code system.
func (d *doc) absentReason(i int32) bool {
	for j := i - 1; j >= 0; j-- {
		if d.nodes[j].kind == jsonObject && d.nodes[j].next > i {
			o := val{d, j}
			return strings.HasSuffix(o.get("url").str(), "/data-absent-reason") ||
				strings.HasSuffix(o.get("system").str(), "/data-absent-reason")
		}
	}
	return false
}
