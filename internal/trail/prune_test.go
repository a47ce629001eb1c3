// SPDX-License-Identifier: Apache-2.0

package trail_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
	"github.com/medirecord/medirecord/internal/token"
	"github.com/medirecord/medirecord/internal/trail"
)

// aged puts entries of an old month into the trail, as if they had been there all
// the time: only a superuser can, and only in a test.
func aged(t *testing.T, super *pgx.Conn, month time.Time, n int) {
	t.Helper()
	name := month.Format("event_2006_01")
	medtest.Exec(t, super, `set role medirecord_owner`)
	medtest.Exec(t, super, `create table audit_part.`+name+` (like audit.event including defaults including constraints)`)
	for _, sql := range []string{
		`revoke all on audit_part.NAME from public`, `alter table audit_part.NAME enable row level security`, `alter table audit_part.NAME force row level security`,
		`create trigger no_truncate before truncate on audit_part.NAME for each statement execute function audit.deny()`,
		`alter table audit_part.NAME enable always trigger no_truncate`,
		`alter table audit.event attach partition audit_part.NAME for values from ('` + month.Format(time.RFC3339) + `') to ('` + month.AddDate(0, 1, 0).Format(time.RFC3339) + `')`,
		`alter table audit_part.NAME enable always trigger no_change`,
	} {
		medtest.Exec(t, super, strings.ReplaceAll(sql, "NAME", name))
	}
	medtest.Exec(t, super, `reset role`)
	for i := range n {
		e := entry(fmt.Sprint("dr-old-", i))
		at := month.Add(time.Duration(i) * time.Hour)
		patient := any(nil)
		if i%4 != 0 {
			patient = fmt.Sprint("p-", i%7)
		}
		id := []byte(string(e.ID))
		ms := fmt.Sprintf("%012x", at.UnixMilli())
		copy(id, ms[:8])
		copy(id[9:], ms[8:])
		medtest.Exec(t, super, `
insert into audit.event (event_id, occurred_at, recorded_at, actor_issuer, actor_subject, patient_id, action, resource_type, resource_id, outcome, break_glass, detail, nonce, version)
values ($1::text::uuid, $2, $2, 'test', $3, $4, 'read', 'patient', 'p', 'success', false, '{}', $5, 1)`, string(id), at, e.Actor.Subject, patient, e.Nonce[:])
	}
}

// exported is a month of the log as a file, and what a pruning of it would be of.
func (s *sealedLog) exported(t *testing.T, month time.Time) ([]byte, trail.Pruning) {
	t.Helper()
	ctx := t.Context()
	snap, err := trail.OpenSnapshot(ctx, s.db.URL("auditor"), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close(ctx)
	logs, err := snap.Logs(ctx)
	if err != nil {
		t.Fatal(err)
	}
	m, err := snap.Month(ctx, logs[0], month)
	if err != nil || m == nil {
		t.Fatalf("%v, %v", m, err)
	}
	var file bytes.Buffer
	x, err := snap.Export(ctx, m, &file, nil)
	if err != nil {
		t.Fatal(err)
	}
	return file.Bytes(), trail.Pruning{Month: m, Entries: x.Entries, Export: sha256.Sum256(file.Bytes())}
}

// holds wants a file that is proved to have so many entries, and nothing wrong.
func (s *sealedLog) holds(t *testing.T, what string, file []byte, want int64) {
	t.Helper()
	var found []audit.Finding
	res, err := audit.VerifyExport(bytes.NewReader(file), func(f audit.Finding) { found = append(found, f) }, trail.Trust(s.policy), nil, nil)
	if err != nil || len(found) > 0 || !res.Proved || res.Rows != want {
		t.Fatalf("%s: got %+v, %v, %v; want %d entries, proved", what, res, found, err, want)
	}
}

func TestAMonthIsPruned(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newSealedLog(t)
	s.connect(t)
	old := time.Date(2019, 5, 1, 0, 0, 0, 0, time.UTC)
	young := time.Date(time.Now().Year()-5, 3, 1, 0, 0, 0, 0, time.UTC)
	aged(t, s.super, old, 60)
	aged(t, s.super, young, 5)
	s.append(t, 30)
	s.sealSink(t)

	exported, part := s.exported(t, old)
	clean := func(t *testing.T) {
		t.Helper()
		s.holds(t, "the export", exported, 60)
	}
	clean(t)
	// A receipt of an entry that will go.
	var receipt string
	var kept audit.Record
	reader, err := trail.OpenReader(ctx, s.db.URL("auditor"))
	if err != nil {
		t.Fatal(err)
	}
	some, err := reader.Sealed(ctx, 1, part.From+3, 1)
	if err != nil || len(some) != 1 {
		t.Fatal(err)
	}
	kept = some[0].Record
	prove := func(t *testing.T) string {
		t.Helper()
		tree := audit.OpenTree(part.Size, func(id audit.TileID) (data []byte, err error) {
			err = s.super.QueryRow(ctx, `select data from audit.tile where epoch = 1 and level = $1 and idx = $2`, id.L, id.N).Scan(&data)
			return data, err
		})
		inclusion, err := tree.Inclusion(part.From+3, part.Size)
		if err != nil {
			t.Fatal(err)
		}
		return audit.FormatProof(part.From+3, inclusion, part.Note)
	}
	receipt = prove(t)
	before := s.whole(t, "p-1")

	r, err := trail.OpenRetention(ctx, s.db.URL("retention"))
	if err != nil {
		t.Fatal(err)
	}
	refused := func(t *testing.T, what, why string, err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: got %v, want %q", what, err, why)
		}
	}
	prune := func(start time.Time, p trail.Pruning, id string) error {
		_, err := r.Prune(ctx, start, 0, []*trail.Pruning{&p}, []string{id})
		return err
	}
	now := time.Now()
	none := "01a20765-bb9e-70da-9906-9ce13e90d490"
	refused(t, "without an entry", "the entry that says what is dropped", prune(old, part, none))
	id, err := r.Announce(ctx, now, "tester", &part)
	if err != nil {
		t.Fatal(err)
	}
	refused(t, "before the entry is sealed", "not sealed and cosigned yet", prune(old, part, id))
	wrong := part
	wrong.Entries++
	wrongID, err := r.Announce(ctx, now, "tester", &wrong)
	if err != nil {
		t.Fatal(err)
	}
	_, youngPart := s.exported(t, young)
	youngID, err := r.Announce(ctx, now, "tester", &youngPart)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.PlaceHold(ctx, now, "tester", trail.Hold{Name: "case-1", Patient: "p-1"}); err != nil {
		t.Fatal(err)
	}
	s.sealSink(t)
	if ok, err := r.Sealed(ctx, id); err != nil || !ok {
		t.Fatalf("sealed %v, %v", ok, err)
	}
	refused(t, "a month that is not old enough", "not older than the policy", prune(young, youngPart, youngID))
	refused(t, "the half of a month", "a month is its first day", prune(old.AddDate(0, 0, 3), part, id))
	refused(t, "while it is held", "is held: case-1", prune(old, part, id))
	if err := r.EndHold(ctx, now, "tester", "case-1"); err != nil {
		t.Fatal(err)
	}
	refused(t, "another's entry", "the entry that says what is dropped", prune(old, part, youngID))
	refused(t, "another export", "says something else", func() error { p := part; p.Export[0]++; return prune(old, p, id) }())
	refused(t, "another number of entries", "another number of sealed entries", prune(old, wrong, wrongID))
	_, err = r.Prune(ctx, old, 0, nil, []string{})
	refused(t, "as if it were empty", "60 entries, and 0 of them are sealed", err)
	// The role can do nothing else.
	conn := s.db.As(t, "retention")
	for _, sql := range []string{
		`select * from audit.event`, `delete from audit.event`, `drop table audit_part.event_2019_05`, `insert into audit.pruned_month default values`,
		`update audit.hold set ended_at = null`, `delete from audit.hold`, `delete from audit.tile`, `set role medirecord_owner`,
		`select audit.end_hold('case-1', '` + none + `')`,
	} {
		if _, err := conn.Exec(ctx, sql); err == nil {
			t.Errorf("retention may %s", sql)
		}
	}
	if _, found := s.verify(t, s.db, true); len(found) > 0 {
		t.Errorf("before: %v", found)
	}
	// Somebody takes an entry out of the month: it is not dropped over that.
	medtest.Exec(t, s.super, `begin; set local lock_timeout = '5s'; alter table audit.event disable trigger all; delete from audit.event where event_id = '`+kept.ID+`'; alter table audit.event enable always trigger no_change; alter table audit.event enable always trigger no_truncate`)
	medtest.Exec(t, s.super, `rollback`)

	if n, err := r.Prune(ctx, old, 0, []*trail.Pruning{&part}, []string{id}); err != nil || n != 60 {
		t.Fatalf("got %d, %v", n, err)
	}
	refused(t, "again", "there is no partition", prune(old, part, id))
	s.sealSink(t)
	v, found := s.verify(t, s.db, true)
	if len(found) > 0 || v.Pruned != 60 || v.Head == nil {
		t.Errorf("after: got %v, %+v", found, v)
	}
	clean(t)
	if after := s.whole(t, "p-1"); !slices.Equal(after, before) {
		t.Errorf("the list of a patient's entries is not whole any more: %d, and %d before", len(after), len(before))
	}
	if again := prove(t); again != receipt {
		t.Error("the receipt is another than before")
	}
	index, inclusion, text, err := audit.ParseProof(receipt)
	if err != nil {
		t.Fatal(err)
	}
	head, err := trail.Trust(s.policy)(text)
	if err != nil {
		t.Fatal(err)
	}
	if err := audit.CheckProof(&head.Checkpoint, index, inclusion, &kept); err != nil {
		t.Errorf("the old receipt: %v", err)
	}

	t.Run("a month that was dropped without an entry is missing", func(t *testing.T) {
		s.trail.Close()
		r.Close(ctx)
		reader.Close()
		_ = conn.Close(ctx)
		s.alone(t)
		for name, sql := range map[string]string{
			"the entry is taken out":      `delete from audit.event where event_id = '` + id + `'`,
			"it says other places":        `update audit.pruned_month set last_index = last_index + 1`,
			"more is said to be dropped":  `insert into audit.pruned (epoch, key, month, indexes) values (1, decode(repeat('ab', 32), 'hex'), '2019-05-01', array[5::bigint])`,
			"another patient is named":    `update audit.pruned set key = decode(repeat('ab', 32), 'hex') where key = (select p.key from audit.pruned p where p.key <> decode(repeat('00', 32), 'hex') limit 1)`,
			"what is known of it is gone": `delete from audit.pruned; delete from audit.pruned_month`,
		} {
			db := s.db.Clone(t)
			super := db.Super(t)
			medtest.Exec(t, super, unlocked+sql)
			if _, found := s.verify(t, db, true); !slices.ContainsFunc(found, audit.Finding.Tampering) {
				t.Errorf("%s: got %v", name, found)
			}
		}
	})
}

// whole returns the leaves of a patient's entries, proved to be all of them.
func (s *sealedLog) whole(t *testing.T, patient string) []trail.Leaf {
	t.Helper()
	signed := medtest.Mint(t, token.Context{Issuer: "i", Subject: "s", Roles: []string{"patient"}, Practice: "practice-north", Action: "audit.read", Patient: patient, Self: patient}, 10*time.Second)
	conn := s.db.As(t, "app")
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }() // what comes later wants nobody connected
	if _, err := tx.Exec(t.Context(), `select set_config('medirecord.ctx', $1, true)`, signed); err != nil {
		t.Fatal(err)
	}
	w, err := trail.ProveWhole(t.Context(), tx, med.PatientID(patient))
	if err != nil {
		t.Fatal(err)
	}
	chain := audit.PatientHead{Key: w.Map.Head.Key}
	for _, l := range w.Entries {
		chain.Add(l.Hash)
	}
	if chain != w.Map.Head || chain.Count == 0 {
		t.Errorf("%d entries are not what the map holds: %+v", len(w.Entries), w.Map.Head.Count)
	}
	return w.Entries
}

// Who has the database can have any entry sealed, and one of years to come says
// that a young month was old enough to be dropped. The verifier has a clock of
// its own.
func TestAMonthIsNotDroppedByAnEntryOfYearsToCome(t *testing.T) {
	t.Parallel()
	s := newSealedLog(t)
	s.connect(t)
	e := entry("service:retention")
	medtest.Exec(t, s.super, `
insert into audit.event (event_id, occurred_at, recorded_at, actor_issuer, actor_subject, action, resource_type, resource_id, outcome, break_glass, detail, nonce, version)
select $1::text::uuid, now(), now() + interval '7 years', 'medirecord', 'service:retention', 'retention.prune', 'audit', to_char(occurred_at at time zone 'UTC', 'YYYY-MM') || '/1',
       'success', false, '{"counts":{"first":0,"last":749,"entries":1},"digest":"' || repeat('ab', 32) || '"}', $2, 1
  from audit.event where event_id = $3::text::uuid`, string(e.ID), e.Nonce[:], s.ids[111])
	s.sealSink(t)
	medtest.Exec(t, s.super, `insert into audit.pruned_month (month, epoch, first_index, last_index, entries, checkpoint_size, export_sha256, event_id)
select date_trunc('month', occurred_at at time zone 'UTC'), 1, 0, 749, 1, 750, decode(repeat('ab', 32), 'hex'), $1::text::uuid from audit.event where event_id = $2::text::uuid`,
		string(e.ID), s.ids[111])
	medtest.Exec(t, s.super, `insert into audit.pruned (epoch, key, month, indexes)
select 1, case when patient_id is null then decode(repeat('00', 32), 'hex') else sha256(convert_to('mr-patient-v1', 'UTF8') || '\x00'::bytea || convert_to(patient_id, 'UTF8')) end,
       date_trunc('month', occurred_at at time zone 'UTC'), '{111}' from audit.event where event_id = $1::text::uuid`, s.ids[111])
	medtest.Exec(t, s.super, unlocked+`delete from audit.event where event_id = '`+s.ids[111]+`'`)
	_, found := s.verify(t, s.db, true)
	var got []string
	for _, f := range found {
		got = append(got, fmt.Sprintf("%s %d", f.Kind, f.Index))
	}
	if !slices.Contains(got, "missing 111") {
		t.Errorf("got %v, want entry 111 missing", found)
	}
}
