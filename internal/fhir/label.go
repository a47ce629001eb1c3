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

// labelsWithin reads every label in v: of the resource, of what it contains or
// bundles, of the document that it points to. What is told of one part of a
// resource is told of all of it.
func labelsWithin(v val) labels {
	l := labelsOf(v.get("meta"))
	add := func(s med.Sensitivity) { l.sensitivity = med.Strictest(l.sensitivity, s) }
	for i, end := v.i, v.node().next; i < end; i++ {
		at := val{v.d, i}
		switch v.d.name(i) {
		case "meta":
			inner := labelsOf(at)
			l.altered = l.altered || inner.altered
			add(inner.sensitivity)
		case "securityLabel": // DocumentReference and its kin
			for label := range at.items() {
				if codings := label.get("coding"); codings.present() {
					label = codings
				}
				for coding := range label.items() {
					s, _ := sensitivity(coding)
					add(s)
				}
			}
		case "confidentiality": // Composition
			if at.kind() == jsonString && !slices.Contains(unrestricted, at.str()) {
				add(med.SensitivityRestricted)
			}
		}
	}
	return l
}

// unrestricted are the codes of v3-Confidentiality that restrict nobody of the staff.
var unrestricted = []string{"N", "L", "M", "U"}

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
		if slices.Contains(unrestricted, code) {
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
