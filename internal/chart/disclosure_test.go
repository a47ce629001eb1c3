// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
)

func today() med.Day { return med.DayOf(time.Now()) }

// reported is a disclosure of yesterday that lacks nothing.
func reported() med.Disclosure {
	yesterday := today().Plus(-1)
	return med.Disclosure{
		Basis: "public_health", Recipient: "Zillertal County Health Department", Address: "17 Quarry Lane, Ostermundigen",
		Purpose: "Notifiable disease: campylobacteriosis", Description: "Stool culture of the week before", First: yesterday, Last: yesterday,
	}
}

// seized is one that law enforcement asks to keep quiet about.
func seized(statement med.Statement, until med.Day) med.Disclosure {
	d := reported()
	d.Basis, d.Recipient, d.Purpose, d.Request = "law_enforcement", "Gendarmerie of Unterwalden", "", "Warrant 4711-B in folder nine"
	d.Suspensions = []med.Suspension{*silence(statement, until)}
	return d
}

func silence(statement med.Statement, until med.Day) *med.Suspension {
	return &med.Suspension{Agency: "law_enforcement", Official: "Inspector Wachtmeister", Statement: statement, StatedOn: today(), Until: until}
}

// secrets notes all that a disclosure tells: none of it may be in trail or log.
func secrets(s *medtest.System, ds ...med.Disclosure) {
	for _, d := range ds {
		s.Secret(d.Recipient, d.Address, d.Purpose, d.Request, d.Description, med.PHI(d.First.Reveal()+`"`))
		for _, x := range d.Suspensions {
			s.Secret(x.Official)
		}
	}
}

func (w *world) record(t *testing.T, tok string, id med.PatientID, d med.Disclosure) *med.Disclosure {
	t.Helper()
	out, err := w.Chart.RecordDisclosure(t.Context(), w.Caller(t, tok), id, d, med.Once{})
	noError(t, err)
	return out
}

func (w *world) account(t *testing.T, tok string, id med.PatientID) *med.Accounting {
	t.Helper()
	a, err := w.Chart.ReadAccounting(t.Context(), w.Caller(t, tok), id, med.AccountingAsk{})
	noError(t, err)
	return a
}

// world is a system with the people that these tests need.
type world struct {
	*medtest.System
	alice, bob                         med.PatientID // of North and South
	clinician, admin, officer, herself string
}

func newWorld(t *testing.T, opts ...medtest.Options) *world {
	t.Helper()
	s := medtest.New(t, opts...)
	w := &world{System: s, alice: s.Patient(t, medtest.North, medtest.Alice())}
	bob := medtest.Alice()
	bob.SSN, bob.MRN = "987-65-4321", "MRN-000002"
	w.bob = s.Patient(t, medtest.South, bob)
	w.clinician, w.admin, w.officer = s.Of(t, med.RoleClinician, medtest.North), s.Of(t, med.RoleAdmin, medtest.North), s.Of(t, med.RoleOfficer, medtest.North)
	w.herself = s.PatientOf(t, w.alice, medtest.North)
	secrets(s, reported(), seized("oral", today()))
	return w
}

func recipients(a *med.Accounting) (out []string) {
	for _, l := range a.Lines {
		mark := ""
		if l.Suspended != nil {
			mark = " suspended"
		}
		out = append(out, l.Recipient.Reveal()+mark)
	}
	return out
}

func TestADisclosureFromItsRecordToItsAccounting(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, tok := range []string{w.clinician, w.admin, w.officer} {
		d := w.record(t, tok, w.alice, reported())
		e := entry(t, w.System, string(d.Event))
		if e.Action != "disclose" || e.Resource != "disclosure/"+string(d.ID) || e.Patient != string(w.alice) || e.PatientPractice != "north" ||
			e.Outcome != "success" || e.Parent != "" || len(e.Detail.Counts) != 0 {
			t.Errorf("the entry: got %+v", e)
		}
	}
	treated := reported()
	treated.Basis = "treatment"
	w.record(t, w.clinician, w.alice, treated)

	for who, tok := range map[string]string{"herself": w.herself, "an admin": w.admin, "an officer": w.officer} {
		a := w.account(t, tok, w.alice)
		if len(a.Lines) != 1 || len(a.Lines[0].IDs) != 3 || a.Lines[0].Count != 3 {
			t.Fatalf("%s: got %d lines, want the three as one", who, len(a.Lines))
		}
		want := reported()
		if l := a.Lines[0]; l.Recipient != want.Recipient || l.Address != want.Address || l.Purpose != want.Purpose || l.Description != want.Description ||
			l.First != want.First || l.Last != want.Last || l.Basis != want.Basis {
			t.Errorf("%s: the line is another one", who)
		}
		if a.Window.From != today().YearsBack(6) || a.Window.To != today() || a.Name != "Practice north" || a.ForPatient != (who == "herself") {
			t.Errorf("%s: got from %s to %s of %q", who, a.Window.From.Reveal(), a.Window.To.Reveal(), a.Name)
		}
		if e := entry(t, w.System, string(a.Event)); e.Action != "read_disclosures" || e.Outcome != "success" || e.Detail.Counts["disclosures"] != 1 || e.Patient != string(w.alice) {
			t.Errorf("%s: the entry of the accounting: got %+v", who, e)
		}
	}

	// Nothing of it lies in clear in the database.
	rows, err := w.DB.Super(t).Query(t.Context(), `select d::text, encode(sealed, 'escape'), length(sealed) from medirecord.disclosure d`)
	noError(t, err)
	defer rows.Close()
	var lengths []int
	for rows.Next() {
		var text, raw string
		var n int
		noError(t, rows.Scan(&text, &raw, &n))
		d := reported()
		for _, p := range []string{d.Recipient.Reveal(), d.Address.Reveal(), d.Purpose.Reveal(), d.Description.Reveal(), d.First.Reveal() + `"`, string(d.Basis), "treatment"} {
			if strings.Contains(text+raw, p) {
				t.Errorf("a row tells %q", p)
			}
		}
		lengths = append(lengths, n)
	}
	noError(t, rows.Err())
	if slices.Sort(lengths); len(lengths) != 4 || lengths[0] != lengths[3] {
		t.Errorf("the lengths %v tell one from another", lengths)
	}
}

func TestWhoAccountsForDisclosures(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.record(t, w.officer, w.alice, reported())
	noMFA := func(role string) string {
		return w.Token(t, medtest.Claims{"roles": []string{role}, "practice_id": "north", "mfa_verified": nil})
	}
	southOfficer := w.Of(t, med.RoleOfficer, medtest.South)
	bobHimself := w.PatientOf(t, w.bob, medtest.South)
	for _, tc := range []struct {
		name, tok string
		id        med.PatientID
		code      [3]string // of recording, amending, reading; "" is allowed
	}{
		{"a clinician", w.clinician, w.alice, [3]string{"", "forbidden", "forbidden"}},
		{"a nurse", w.Of(t, med.RoleNurse, medtest.North), w.alice, [3]string{"forbidden", "forbidden", "forbidden"}},
		{"the patient", w.herself, w.alice, [3]string{"forbidden", "forbidden", ""}},
		{"another patient", bobHimself, w.alice, [3]string{"forbidden", "forbidden", "not_self"}},
		{"a patient, of nobody", bobHimself, "nobody-at-all", [3]string{"forbidden", "forbidden", "not_self"}},
		{"another practice's officer", southOfficer, w.alice, [3]string{"other_practice", "other_practice", "other_practice"}},
		{"another practice's clinician", w.Of(t, med.RoleClinician, medtest.South), w.alice, [3]string{"other_practice", "forbidden", "forbidden"}},
		{"an officer, of nobody", w.officer, "nobody-at-all", [3]string{"not_found", "not_found", "not_found"}},
		{"an officer without a second factor", noMFA("officer"), w.alice, [3]string{"mfa_required", "mfa_required", "mfa_required"}},
		{"an admin without a second factor", noMFA("admin"), w.alice, [3]string{"mfa_required", "mfa_required", "mfa_required"}},
		{"the emergency room", er(t, w.System), w.alice, [3]string{"break_glass_reason_required", "break_glass_reason_required", "break_glass_reason_required"}},
		{"staff, of their own record", w.Token(t, medtest.Claims{"roles": []string{"admin"}, "practice_id": "north", "patient_id": string(w.alice)}), w.alice, [3]string{"forbidden", "forbidden", ""}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := w.Caller(t, tc.tok)
			_, recorded := w.Chart.RecordDisclosure(t.Context(), c, tc.id, reported(), med.Once{})
			_, amended := w.Chart.AmendDisclosure(t.Context(), c, tc.id, d.ID, med.Amendment{InError: true})
			a, read := w.Chart.ReadAccounting(t.Context(), c, tc.id, med.AccountingAsk{})
			for i, err := range []error{recorded, amended, read} {
				if tc.code[i] == "" && err != nil || tc.code[i] != "" && (err == nil || med.CodeOf(err) != tc.code[i]) {
					t.Errorf("call %d: got %v, want %q", i, err, tc.code[i])
				}
				if event, ok := med.EventOf(err); err != nil && (!ok || entry(t, w.System, string(event)).Outcome == "success") {
					t.Errorf("call %d: no entry of the refusal", i)
				}
			}
			if (a != nil) != (read == nil) {
				t.Error("an accounting came with an error")
			}
		})
	}
	// No disclosure of Alice's was amended, and none is Bob's.
	if n := count(t, w.DB.Super(t), "medirecord.disclosure where version > 1 or patient_id <> $1 or practice_id <> 'north'", string(w.alice)); n != 0 {
		t.Errorf("%d rows that should not be", n)
	}
	if got := w.account(t, bobHimself, w.bob); len(got.Lines) != 0 {
		t.Errorf("Bob is told %q", recipients(got))
	}
}

func TestAnAgencySuspendsTheAccounting(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.record(t, w.clinician, w.alice, reported())

	// Recorded with it: from the first moment on the patient is not told.
	if _, err := w.Chart.RecordDisclosure(t.Context(), w.Caller(t, w.clinician), w.alice, seized("oral", today()), med.Once{}); med.CodeOf(err) != "forbidden" {
		t.Errorf("a clinician suspends: got %v", err)
	}
	if _, err := w.Chart.RecordDisclosure(t.Context(), w.Caller(t, w.officer), w.alice, seized("oral", today().Plus(31)), med.Once{}); med.KindOf(err) != med.Invalid {
		t.Errorf("orally for 31 days: got %v", err)
	}
	d := w.record(t, w.officer, w.alice, seized("oral", today().Plus(30)))
	open, both := []string{"Zillertal County Health Department"}, []string{"Zillertal County Health Department", "Gendarmerie of Unterwalden suspended"}
	sees := func(when string, patient, staff []string) {
		t.Helper()
		for tok, want := range map[string][]string{w.herself: patient, w.officer: staff, w.admin: staff} {
			a := w.account(t, tok, w.alice)
			if n := entry(t, w.System, string(a.Event)).Detail.Counts["disclosures"]; n != len(patient) {
				t.Errorf("%s: the entry counts %d, want the %d that the patient is told", when, n, len(patient))
			}
			got := recipients(a)
			slices.Sort(got)
			want = slices.Sorted(slices.Values(want))
			if !slices.Equal(got, want) {
				t.Errorf("%s: got %q, want %q", when, got, want)
			}
		}
	}
	sees("suspended", open, both)

	// In writing it may be longer; orally once more it may not.
	amend := func(change med.Amendment) error {
		out, err := w.Chart.AmendDisclosure(t.Context(), w.Caller(t, w.officer), w.alice, d.ID, change)
		if err == nil {
			d = out
		}
		return err
	}
	if err := amend(med.Amendment{Suspension: silence("oral", today().Plus(31))}); med.KindOf(err) != med.Invalid {
		t.Errorf("orally for longer: got %v", err)
	}
	noError(t, amend(med.Amendment{Suspension: silence("written", today().Plus(200))}))
	sees("in writing", open, both)

	// Withdrawn: the newest statement counts.
	over := silence("written", today().Plus(-1))
	over.StatedOn = today().Plus(-1)
	noError(t, amend(med.Amendment{Suspension: over}))
	sees("withdrawn", []string{open[0], "Gendarmerie of Unterwalden"}, []string{open[0], "Gendarmerie of Unterwalden"})
	if d.Version != 3 || len(d.Suspensions) != 3 {
		t.Errorf("got version %d with %d statements", d.Version, len(d.Suspensions))
	}
	for _, l := range w.account(t, w.herself, w.alice).Lines {
		if l.Suspended != nil || l.Suspensions != nil {
			t.Error("the patient is told that there was a suspension")
		}
	}

	// What the trail tells the patient tells nothing of it.
	for _, e := range w.TrailRows(t) {
		if strings.Contains(strings.ToLower(e.Text), "suspen") || strings.Contains(e.Text, "law_enforcement") {
			t.Errorf("entry %s tells of the suspension: %s", e.ID, e.Text)
		}
	}
	correct := seized("oral", today())
	correct.Suspensions, correct.Recipient = nil, "Gendarmerie of Obwalden"
	w.Secret(correct.Recipient)
	noError(t, amend(med.Amendment{Correction: &correct}))
	sees("corrected", []string{open[0], "Gendarmerie of Obwalden"}, []string{open[0], "Gendarmerie of Obwalden"})
	noError(t, amend(med.Amendment{InError: true}))
	sees("entered in error", open, open)
	if err := amend(med.Amendment{InError: true}); med.CodeOf(err) != "entered_in_error" {
		t.Errorf("twice: got %v", err)
	}
	if n := count(t, w.DB.Super(t), "medirecord.disclosure where id::text = $1", string(d.ID)); n != 5 {
		t.Errorf("%d versions, want all five kept", n)
	}
	if _, err := w.Chart.AmendDisclosure(t.Context(), w.Caller(t, w.officer), w.alice, "not-a-uuid", med.Amendment{InError: true}); med.KindOf(err) != med.NotFound {
		t.Errorf("an id that is none: got %v", err)
	}
}

func TestTwoAmendmentsAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.record(t, w.officer, w.alice, reported())
	super := w.DB.Super(t)
	release := locked(t, super, "audit.event") // both have read, and wait with their entries
	got := make(chan error, 2)
	c := w.Caller(t, w.officer)
	for range 2 {
		go func() {
			_, err := w.Chart.AmendDisclosure(context.WithoutCancel(t.Context()), c, w.alice, d.ID, med.Amendment{InError: true})
			got <- err
		}()
	}
	other := w.DB.Super(t)
	eventually(t, "both wait", func() bool {
		return count(t, other, "pg_locks l join pg_database d on d.oid = l.database where not granted and d.datname = $1", w.DB.Clinical) >= 1 &&
			count(t, other, "pg_stat_activity where datname = $1 and wait_event_type = 'Lock'", w.DB.Clinical) >= 2
	})
	release()
	first, second := <-got, <-got
	if first != nil {
		first, second = second, first
	}
	if first != nil || med.CodeOf(second) != "amended_meanwhile" && med.CodeOf(second) != "entered_in_error" {
		t.Errorf("got %v and %v, want one to succeed and one to conflict", first, second)
	}
}

func TestAnAccountingOutlivesTheRecord(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.record(t, w.officer, w.alice, reported())
	medtest.Exec(t, w.DB.Super(t), `update medirecord.patient set deleted_at = now(), key_state = 'destroyed' where id = $1`, string(w.alice))
	medtest.Exec(t, w.DB.SuperKeys(t), `delete from keys.patient_key where patient_id = $1`, string(w.alice))
	for _, tok := range []string{w.officer, w.herself} {
		if a := w.account(t, tok, w.alice); len(a.Lines) != 1 {
			t.Errorf("got %d lines", len(a.Lines))
		}
	}
	if _, err := w.Chart.RecordDisclosure(t.Context(), w.Caller(t, w.officer), w.alice, reported(), med.Once{}); med.KindOf(err) != med.NotFound {
		t.Errorf("a new one: got %v", err)
	}
}

func TestATamperedDisclosureIsNoticed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.record(t, w.officer, w.alice, reported())
	super := w.DB.Super(t)
	medtest.Exec(t, super, `set session_replication_role = replica`) // no constraint
	medtest.Exec(t, super, `create table public.kept as select * from medirecord.disclosure`)
	carolID := w.Patient(t, medtest.North, withSource("carol"))
	for name, sql := range map[string]string{
		"another patient's": `patient_id = '` + string(carolID) + `'`,
		"another id":        `id = gen_random_uuid()`,
		"another version":   `version = 2`,
		"a flipped bit":     `sealed = set_bit(sealed, 100, 1 - get_bit(sealed, 100))`,
		"cut short":         `sealed = substr(sealed, 1, 500)`,
		"nothing":           `sealed = ''`,
	} {
		medtest.Exec(t, super, "update medirecord.disclosure set "+sql)
		id := w.alice
		if name == "another patient's" {
			id = carolID
		}
		_, err := w.Chart.ReadAccounting(t.Context(), w.Caller(t, w.officer), id, med.AccountingAsk{})
		if med.CodeOf(err) != "integrity" {
			t.Errorf("%s: got %v", name, err)
		}
		medtest.Exec(t, super, `update medirecord.disclosure d set id = k.id, version = k.version, patient_id = k.patient_id, sealed = k.sealed from public.kept k`)
	}
	if a := w.account(t, w.officer, w.alice); len(a.Lines) != 1 {
		t.Errorf("put back: got %d lines", len(a.Lines))
	}
}

func TestNoDisclosureWithoutItsEntry(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	super := w.DB.Super(t)
	medtest.Exec(t, super, `create policy nothing on audit.event as restrictive for insert to medirecord_app with check (action <> 'disclose')`)
	_, err := w.Chart.RecordDisclosure(t.Context(), w.Caller(t, w.officer), w.alice, reported(), med.Once{})
	if med.KindOf(err) != med.AuditUnavailable {
		t.Errorf("got %v", err)
	}
	if n := count(t, super, "medirecord.disclosure"); n != 0 {
		t.Errorf("%d disclosures without their entry", n)
	}
}

// The same over HTTP, as clients do it.
func TestDisclosuresOverHTTP(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	at := "/api/v1/patients/" + string(w.alice) + "/disclosures"
	yesterday := today().Plus(-1).Reveal()
	const id = "018F0000-0000-7000-8000-0000000000D1" // a client's own, in capitals
	body := `{"id":"` + id + `","recipient":{"name":"<script>alert(1)</script> Gendarmerie of Unterwalden"},"basis":"law_enforcement","request":"Warrant 4711-B in folder nine",` +
		`"description":"Stool culture of the week before","disclosed_on":"` + yesterday + `"}`
	suspension := `{"agency":"law_enforcement","official":"Inspector Wachtmeister","statement":"oral","stated_on":"` + today().Reveal() + `","until":"` + today().Plus(30).Reveal() + `"}`

	got := w.Post(t, w.officer, at, body)
	if got.Status != 201 || !strings.Contains(got.Body, `"data":{"id":"`+strings.ToLower(id)+`","version":1}`) || entryOf(t, w.System, got).Action != "disclose" {
		t.Fatalf("got %d %s", got.Status, got.Body)
	}
	if again := w.Post(t, w.officer, at, body); again.Status != 409 || !strings.Contains(again.Body, `"code":"recorded_before"`) {
		t.Errorf("once more: got %d %s", again.Status, again.Body)
	}
	if n := count(t, w.DB.Super(t), "medirecord.disclosure"); n != 1 {
		t.Errorf("%d disclosures, want the one", n)
	}
	text := w.Get(t, w.herself, at+"/accounting")
	if text.Status != 200 || text.Header.Get("Content-Type") != "text/html; charset=utf-8" || strings.Contains(text.Body, "<script") ||
		!strings.Contains(text.Body, "&lt;script&gt;alert(1)&lt;/script&gt; Gendarmerie of Unterwalden") || entryOf(t, w.System, text).Action != "read_disclosures" {
		t.Errorf("printed: got %d %s", text.Status, text.Body)
	}
	if got := w.Get(t, w.herself, at); !strings.Contains(got.Body, `"name":"\u003cscript\u003ealert(1)\u003c/script\u003e Gendarmerie of Unterwalden"`) {
		t.Errorf("read: got %d %s", got.Status, got.Body)
	}

	for name, c := range map[string]struct {
		tok, path, body string
		status          int
		part            string
	}{
		"a clinician's suspension":    {w.clinician, at, strings.Replace(body[:len(body)-1], id, "018f0000-0000-7000-8000-0000000000d2", 1) + `,"suspension":` + suspension + `}`, 403, `"code":"forbidden"`},
		"a suspension of 31 days":     {w.officer, at + "/" + id + "/amendments", `{"suspension":` + strings.Replace(suspension, today().Plus(30).Reveal(), today().Plus(31).Reveal(), 1) + `}`, 422, `"pointer":"/suspension/until"`},
		"an amendment of nothing":     {w.officer, at + "/" + id + "/amendments", `{}`, 422, `"code":"invalid"`},
		"of no disclosure":            {w.officer, at + "/018f0000-0000-7000-8000-00000000ffff/amendments", `{"entered_in_error":true}`, 404, `"code":"not_found"`},
		"of tomorrow":                 {w.officer, at, strings.Replace(strings.Replace(body, id, "018f0000-0000-7000-8000-0000000000d3", 1), yesterday, today().Plus(1).Reveal(), 1), 422, `"pointer":"/disclosed_on","reason":"in the future"`},
		"another practice's officer":  {w.Of(t, med.RoleOfficer, medtest.South), at + "/" + id + "/amendments", `{"entered_in_error":true}`, 403, `"code":"other_practice"`},
		"somebody without any token":  {"", at, body, 401, `"code":"unauthorized"`},
		"a patient who would be told": {w.herself, at + "/" + id + "/amendments", `{"entered_in_error":true}`, 403, `"code":"forbidden"`},
	} {
		if got := w.Post(t, c.tok, c.path, c.body); got.Status != c.status || !strings.Contains(got.Body, c.part) {
			t.Errorf("%s: got %d %s, want %d with %s", name, got.Status, got.Body, c.status, c.part)
		}
	}
	if got := w.Get(t, w.officer, at+"?from="+today().YearsBack(6).Plus(-1).Reveal()); got.Status != 422 || !strings.Contains(got.Body, "more than six years ago") {
		t.Errorf("seven years back: got %d %s", got.Status, got.Body)
	}

	if got := w.Post(t, w.officer, at+"/"+id+"/amendments", `{"suspension":`+suspension+`}`); got.Status != 201 || !strings.Contains(got.Body, `"version":2`) {
		t.Fatalf("suspended: got %d %s", got.Status, got.Body)
	}
	for name, c := range map[string]struct {
		tok, path string
		told      bool
	}{
		"the patient": {w.herself, at, false}, "the patient, printed": {w.herself, at + "/accounting", false},
		"an officer": {w.officer, at, true}, "an officer, printed for the patient": {w.officer, at + "/accounting", false},
	} {
		got := w.Get(t, c.tok, c.path)
		if got.Status != 200 || strings.Contains(got.Body, "Gendarmerie") != c.told || strings.Contains(got.Body, "Wachtmeister") != c.told {
			t.Errorf("%s: got %d %s", name, got.Status, got.Body)
		}
	}
	accesses := w.Get(t, w.herself, "/api/v1/patients/"+string(w.alice)+"/accesses")
	if accesses.Status != 200 || strings.Contains(strings.ToLower(accesses.Body), "suspen") ||
		strings.Count(accesses.Body, "A privacy officer did paperwork on your record.") < 2 ||
		!strings.Contains(accesses.Body, "You looked at whom your own record was disclosed to.") {
		t.Errorf("the patient's accesses: got %d %s", accesses.Status, accesses.Body)
	}
}
