// SPDX-License-Identifier: Apache-2.0

package medtest

import (
	"context"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/internal/audit"
)

// TrailRow is a row of the trail as the superuser sees it.
type TrailRow struct {
	ID, Parent, Actor, Practice, Action, Resource, Patient, PatientPractice, Outcome, Code, Nonce string
	BreakGlass                                                                                    bool
	OccurredAt, RecordedAt                                                                        time.Time
	Detail                                                                                        audit.Detail
	Text                                                                                          string // of every text column
}

// TrailRows rereads the whole trail from scratch.
func (s *System) TrailRows(t testing.TB) []TrailRow { return s.DB.TrailRows(t) }

// TrailRows rereads the whole trail from scratch.
func (d *Databases) TrailRows(t testing.TB) []TrailRow {
	t.Helper()
	super := d.Super(t)
	defer func() { _ = super.Close(context.Background()) }() // who waits for something calls this often
	rows, err := super.Query(context.Background(), `
select event_id::text, coalesce(parent_id::text, ''), actor_subject, coalesce(actor_practice, ''), action, resource_type || '/' || resource_id, coalesce(patient_id, ''),
       coalesce(patient_practice, ''), outcome, coalesce(code, ''), break_glass, occurred_at, recorded_at, detail, encode(nonce, 'hex'),
       concat_ws(' ', actor_issuer, actor_subject, actor_practice, patient_id, patient_practice, action, resource_type, resource_id, code, ctx_nonce, ctx_mac, detail)
  from audit.event order by tx, event_id`)
	if err != nil {
		t.Fatal(err)
	}
	out, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (TrailRow, error) {
		var e TrailRow
		var detail string
		err := r.Scan(&e.ID, &e.Parent, &e.Actor, &e.Practice, &e.Action, &e.Resource, &e.Patient, &e.PatientPractice, &e.Outcome, &e.Code, &e.BreakGlass,
			&e.OccurredAt, &e.RecordedAt, &detail, &e.Nonce, &e.Text)
		if err == nil {
			e.Detail, err = audit.ParseDetail(detail)
		}
		return e, err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// CheckTrail rereads the trail from scratch and holds it against the promises:
// ids and nonces are unique, children have their parents, every answer that
// the API gave is there with an outcome that fits, every entry's strings are
// clean and its MAC of its context, and neither trail nor log holds a text that
// is PHI.
func (s *System) CheckTrail(t testing.TB) {
	t.Helper()
	if !s.Forged {
		s.DB.checkMACs(t)
	}
	rows := s.TrailRows(t)
	byID, nonces := map[string]TrailRow{}, map[string]bool{}
	for _, e := range rows {
		if _, twice := byID[e.ID]; twice {
			t.Errorf("entry %s is in the trail twice", e.ID)
		}
		byID[e.ID] = e
		if nonces[e.Nonce] {
			t.Errorf("entry %s has another's nonce", e.ID)
		}
		nonces[e.Nonce] = true
		if d := e.RecordedAt.Sub(e.OccurredAt); d < -time.Minute || d > 10*time.Minute {
			t.Errorf("entry %s was recorded %s after it occurred", e.ID, d)
		}
		if !utf8.ValidString(e.Text) || strings.ContainsFunc(e.Text, unicode.IsControl) {
			t.Errorf("entry %s holds text that is not clean", e.ID)
		}
		// Of a lookup by who has no practice there is no key to seal its reason under.
		keyless := e.Patient == "" && e.Practice == ""
		if e.BreakGlass != (e.Detail.BreakGlass != nil) || e.BreakGlass && !keyless && e.Outcome == "success" && len(e.Detail.BreakGlass.Sealed) == 0 {
			t.Errorf("entry %s: the break-glass mark and its reason do not agree", e.ID)
		}
	}
	for _, e := range rows {
		if e.Parent != "" && byID[e.Parent].ID == "" && !s.Forged {
			t.Errorf("entry %s has no parent %s", e.ID, e.Parent)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.seen {
		e, there := byID[a.Event]
		switch {
		case a.Status/100 == 2 && guarded(a.Path) && (!there || e.Outcome != "success" || e.Parent != ""):
			t.Errorf("answer %d to %s has no primary entry of a success: %q", a.Status, a.Path, a.Event)
		case a.Event != "" && !there:
			t.Errorf("answer %d to %s names an entry that is not there: %s", a.Status, a.Path, a.Event)
		case a.Event != "" && a.Status/100 != 2 && e.Outcome == "success":
			t.Errorf("answer %d to %s has the entry of a success", a.Status, a.Path)
		}
	}
	log := s.Log.String()
	for _, p := range s.phi {
		if strings.Contains(log, p) {
			t.Errorf("the log holds PHI (%d characters)", len(p))
		}
		for _, e := range rows {
			if strings.Contains(e.Text, p) {
				t.Errorf("entry %s holds PHI (%d characters)", e.ID, len(p))
			}
		}
	}
}

// guarded reports whether an answer of the path needs an entry: the guide's face and the
// versioned one. The log's tiles need a caller too, and are hashes: they leave
// no entry.
func guarded(path string) bool {
	return strings.HasPrefix(path, "/patients/") || strings.HasPrefix(path, "/api/v1/") && !strings.HasPrefix(path, "/api/v1/audit/log/")
}
