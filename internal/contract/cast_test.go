// SPDX-License-Identifier: Apache-2.0

package contract

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
)

// cast are the patients that a world begins with, by id.
type cast map[med.PatientID]*person

// person is a patient with their records. Each of their values is nobody else's.
type person struct {
	practice med.PracticeID
	med.Patient
	records []med.Record
}

const (
	alice med.PatientID = "p-001"     // of North; who has the token "patient"
	bob   med.PatientID = "p-002"     // of North
	carol med.PatientID = "p-south-1" // of South
)

func everybody() cast {
	return cast{
		alice: somebody(1, medtest.North, alice, "Alice", "Umbridge-Smythe", "901-27-6789", "1985-07-15"),
		bob:   somebody(2, medtest.North, bob, "Bob", "Quillfeather", "900-11-2222", "1971-02-03"),
		carol: somebody(3, medtest.South, carol, "Carol", "Zweifelhofer", "900-33-4444", "1964-11-30"),
	}
}

// Who is looked for, in an emergency: dora of South is found alone and opened;
// erin of South and finn of North have one name and birthday, and four of South
// another.
const (
	dora med.PatientID = "p-south-4"
	erin med.PatientID = "p-south-5"
	finn med.PatientID = "p-006"
	quad med.PatientID = "p-south-7"
)

// unconscious adds them.
func (c cast) unconscious() cast {
	c[dora] = somebody(4, medtest.South, dora, "Dora", "Nachtigall", "900-44-5555", "1966-06-16")
	c[erin] = somebody(5, medtest.South, erin, "Erin", "Doppelgaenger", "900-55-6666", "1977-07-17")
	c[finn] = somebody(6, medtest.North, finn, "Finn", "Doppelgaenger", "900-66-7777", "1977-07-17")
	for i := range 4 {
		id := med.PatientID(fmt.Sprintf("p-south-%d", 7+i))
		c[id] = somebody(7+i, medtest.South, id, fmt.Sprintf("Q%d", i), "Vierling", fmt.Sprintf("900-77-888%d", i), "1988-08-18")
		c[id].records = nil
	}
	return c
}

func recordID(n, i int) string { return fmt.Sprintf("01900000-0000-7000-8000-00000000%02d%02d", n, i) }

func somebody(n int, practice med.PracticeID, id med.PatientID, given, family, ssn, dob string) *person {
	p := &person{practice: practice, Patient: med.Patient{
		ID: id, Name: med.Name{Family: med.PHI(family), Given: []med.PHI{med.PHI(given)}, Text: med.PHI(given + " " + family)},
		SSN: med.PHI(ssn), DOB: med.PHI(dob), Diagnosis: med.PHI("Diagnosis of " + given + " " + family), MRN: med.PHI("MRN-" + family), Sex: "female",
		Phone: med.PHI(fmt.Sprintf("555-010-7%03d", n)), Email: med.PHI(given + "@" + family + ".example"),
		Insurance: med.Insurance{Payer: med.PHI("Payer of " + family), MemberID: med.PHI("M-" + family)}, SourceID: med.PHI("source-" + id),
	}}
	for i, k := range []struct {
		kind med.Kind
		how  med.Sensitivity
	}{
		{med.KindObservation, med.SensitivityNormal},
		{med.KindMedication, med.SensitivityNormal},
		{med.KindDocument, med.SensitivityNormal},
		{med.KindClaim, med.SensitivityNormal},
		{med.KindCondition, med.SensitivityRestricted},
		{med.KindDocument, med.SensitivityPsychotherapy},
	} {
		text := med.PHI(fmt.Sprintf("A %s %s of %s %s", k.how, k.kind, given, family))
		p.records = append(p.records, med.Record{
			ID: med.RecordID(recordID(n, i)), Kind: k.kind, Sensitivity: k.how, Status: "final", Author: "Practitioner/somebody",
			Start: "2026-01-02T03:04:05Z", Note: text, Value: med.Value{Text: "value: " + text}, Source: `{"resourceType":"Basic","text":"source: ` + text + `"}`,
		})
	}
	return p
}

// hidden are the names by which a role could ask for what it may not see in
// clear.
var hidden = map[string][]string{
	"patient": {"ssn", "dob", "diagnosis"}, "nurse": {"ssn", "member_id", "insurance"}, "clinician": {}, "officer": {"ssn", "dob", "diagnosis", "member_id", "family", "mrn", "phone"},
	"admin": {}, "break_glass": {},
}

// but returns the cast with other values wherever the role of North sees nothing,
// or no more than a mask that stays the same; of who is looked up, nothing but
// name and birthday; of dora, whom a grant opens, nothing that it hides.
func (c cast) but(role string, r *rand.Rand) cast {
	out := cast{}
	for id, p := range c {
		twin := *p
		twin.records = slices.Clone(p.records)
		switch {
		case id == dora, role == "break_glass" && (id == alice || id == bob || id == carol): // somebody opens them
			twin.vary("clinician", medtest.North, r)
		case role == "break_glass": // nobody does
			twin.vary(role, medtest.South, r)
		default:
			twin.vary(role, p.practice, r)
		}
		if id != alice && id != bob && id != carol {
			twin.Name, twin.DOB = p.Name, p.DOB
		}
		out[id] = &twin
	}
	if role == "patient" { // who else is a patient here is not theirs to know; how long the log is, is
		for id, name := range map[med.PatientID]med.PatientID{bob: "p-2002", carol: "p-south-2002"} {
			out[name] = out[id]
			out[name].ID, out[name].SourceID = name, med.PHI("source-"+name)
			delete(out, id)
		}
	}
	return out
}

// vary changes what the role of North does not see of a patient of the practice.
func (p *person) vary(role string, of med.PracticeID, r *rand.Rand) {
	text := func(what string) med.PHI {
		if r.IntN(4) == 0 {
			return ""
		}
		return med.PHI(fmt.Sprintf("%s %0*d", what, 1+r.IntN(40), r.IntN(1000)))
	}
	digits := func(n int) string { return fmt.Sprintf("%0*d", n, r.IntN(1000)%[]int{1, 10, 100, 1000}[n]) }
	ssn := med.PHI("8" + digits(2) + "-" + digits(2))
	see := map[med.Kind]bool{}
	closed := false // what is restricted is seen too
	switch {
	case of == medtest.South || role == "officer":
		p.Name = med.Name{Family: text("Family") + "x", Text: text("Text") + "x"}
		p.SSN, p.DOB, p.Diagnosis, p.MRN, p.Sex = ssn+"-"+med.PHI(digits(3))+"0", "1950-01-02", text("Diagnosis"), text("MRN"), "male"
		p.Phone, p.Email, p.Insurance = text("555"), text("mail"), med.Insurance{Payer: text("Payer"), MemberID: text("Member")}
	case role == "patient":
		p.SSN, p.DOB, p.Diagnosis = ssn+"-"+p.SSN[7:], med.PHI("19"+digits(2)+"-0"+fmt.Sprint(1+r.IntN(9)))+p.DOB[7:], text("Diagnosis")
		see = map[med.Kind]bool{med.KindObservation: true, med.KindMedication: true}
	case role == "nurse":
		p.SSN, p.Insurance = ssn+"-"+med.PHI(digits(3))+"0", med.Insurance{Payer: text("Payer"), MemberID: text("Member")}
		see = map[med.Kind]bool{med.KindObservation: true, med.KindMedication: true, med.KindDocument: true}
	case role == "clinician", role == "admin":
		see, closed = map[med.Kind]bool{med.KindObservation: true, med.KindMedication: true, med.KindDocument: true, med.KindClaim: true, med.KindCondition: true}, true
	}
	kept := p.records[:0]
	for _, rec := range p.records {
		visible := see[rec.Kind] && (rec.Sensitivity == med.SensitivityNormal || closed && rec.Sensitivity == med.SensitivityRestricted)
		if !visible {
			if r.IntN(2) == 0 {
				continue
			}
			rec.Note, rec.Value = text("Note"), med.Value{Text: text("Value")}
		}
		kept = append(kept, rec)
	}
	p.records = kept
}
