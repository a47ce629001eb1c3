// SPDX-License-Identifier: Apache-2.0

package fhir

import (
	"strings"
	"time"

	"github.com/medirecord/medirecord/internal/med"
)

// treatments lists whom of the staff a resource ties to its patient: the
// participants of an encounter, the members of a care team, and who ordered.
// What does not say who or since when ties nobody.
func treatments(e entry) []med.SourceTreatment {
	v, status := e.res, e.res.get("status").str()
	var out []med.SourceTreatment
	add := func(kind med.TreatmentKind, who, period val, void bool) {
		t, ok := treatment(e, kind, who)
		if !ok {
			return
		}
		if !t.during(period) && !void {
			return
		}
		t.Void = void
		out = append(out, t.SourceTreatment)
	}
	switch e.typ {
	case "Encounter":
		for p := range v.get("participant").items() {
			add(med.TreatmentEncounter, p.get("individual"), either(p.get("period"), v.get("period")), oneOf(status, "cancelled entered-in-error"))
		}
	case "CareTeam":
		for p := range v.get("participant").items() {
			period := either(p.get("period"), v.get("period"))
			gone := status == "entered-in-error" || oneOf(status, "inactive suspended") && !period.get("end").present()
			add(med.TreatmentCareTeam, p.get("member"), period, gone)
		}
	case "MedicationRequest", "ServiceRequest":
		t, ok := treatment(e, med.TreatmentOrder, v.get("requester"))
		at, dated := instant(v.get("authoredOn").str())
		if t.Void = status == "entered-in-error"; ok && (dated || t.Void) {
			t.From, t.To = at, at
			out = append(out, t.SourceTreatment)
		}
	}
	return out
}

func either(a, b val) val {
	if a.present() {
		return a
	}
	return b
}

type sourced struct{ med.SourceTreatment }

func treatment(e entry, kind med.TreatmentKind, who val) (sourced, bool) {
	name := practitioner(who)
	id := e.id
	if id == "" {
		id = string(digestID(e.res.raw()))
	}
	return sourced{med.SourceTreatment{Origin: e.typ + "/" + id + " " + name, Kind: kind, Practitioner: name}}, name != ""
}

// during takes the times of a period, and reports whether it says when it began.
// A day lasts until the next.
func (t *sourced) during(period val) bool {
	from, ok := instant(period.get("start").str())
	if !ok {
		return false
	}
	t.From, t.To = from, from
	end, ended := period.get("end"), false
	if s := end.str(); s != "" {
		if t.To, ended = instant(s); ended && len(s) == len("2006-01-02") {
			t.To = t.To.Add(24*time.Hour - time.Millisecond)
		}
	}
	t.Open = !ended
	if t.To.Before(from) {
		t.To = from
	}
	return true
}

// practitioner is how a reference names one of the staff: by an identifier, as
// system|value, else by the reference itself. Patients, relatives and
// organisations are none of the staff.
func practitioner(ref val) string {
	if value := ref.at("identifier", "value").str(); value != "" {
		return named(ref.at("identifier", "system").str() + "|" + value)
	}
	s := unversioned(ref.get("reference").str())
	if query, ok := strings.CutPrefix(s, "Practitioner?identifier="); ok {
		return named(query)
	}
	if strings.HasPrefix(s, "Practitioner/") || strings.HasPrefix(s, "PractitionerRole/") {
		return named(s)
	}
	return ""
}

func named(s string) string {
	out, changed := clean(s, false)
	if changed || len(out) > 255 {
		return ""
	}
	return out
}
