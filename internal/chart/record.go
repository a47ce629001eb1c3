// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"time"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/envelope"
	"github.com/medirecord/medirecord/internal/fhir"
	"github.com/medirecord/medirecord/internal/gate"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/postgres"
)

// recent is how long a record counts as its author's recent one.
const recent = 24 * time.Hour

// ReadRecord returns one record as the caller may see it. A record that they may
// not see is not there: NotFound, like an id nobody has. It reports what
// ReadPatient does of the patient.
func (s *Service) ReadRecord(ctx context.Context, c med.Caller, id med.PatientID, which med.RecordID) (*med.RecordView, error) {
	var out *med.RecordView
	err := s.aboutRecord(ctx, &c, "read", id, which, func(in *entered) (err error) {
		out, err = s.readRecord(ctx, in, id, which)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (s *Service) readRecord(ctx context.Context, in *entered, id med.PatientID, which med.RecordID) (*med.RecordView, error) {
	open, err := s.openChart(ctx, in, id, which)
	if err != nil {
		return nil, err
	}
	r, err := open.find(which)
	if err != nil {
		return nil, err
	}
	out, err := open.show(r, true)
	if err != nil {
		return nil, s.suspect(ctx, id, err)
	}
	in.discloses(r.view, med.RecordFields)
	out.Event, out.MaxAge = in.call(), in.maxAge()
	return out, nil
}

// ReadRecords returns a page of the patient's records, newest care first, as the
// caller may see them, without their sources. Those they may not see are not
// there: no page is shorter for them. What was entered in error is left out. It
// reports Invalid for a cursor that does not hold here, and what ReadPatient
// does.
func (s *Service) ReadRecords(ctx context.Context, c med.Caller, id med.PatientID, ask med.RecordAsk, p med.Page) (*med.RecordPage, error) {
	out := &med.RecordPage{}
	err := s.aboutRecord(ctx, &c, "read", id, "", func(in *entered) error {
		open, err := s.openChart(ctx, in, id, "")
		if err != nil {
			return err
		}
		out.Event, out.Suspect, out.View, out.MaxAge = in.entry.ID, open.suspect, in.ruling.Decisions[open.relation].View, in.maxAge()
		in.discloses(out.View, med.RecordFields)
		list := listing{"records", []any{id, ask.Kind, ask.From.Reveal(), ask.To.Reveal()}}
		var after *recordPlace
		if err := s.resume(ctx, in, list, p.Cursor, &after); err != nil {
			return err
		}
		page, more := pageOf(open.visible(ask), after, int(p.Rows()))
		for _, r := range page {
			v, err := open.show(r, false)
			if damaged(err) {
				out.Suspect = s.doubted(ctx, in, open.key.ID(), fmt.Errorf("record %s: %w", r.row.ID, err))
				continue
			}
			if err != nil {
				return s.suspect(ctx, id, err)
			}
			out.Records = append(out.Records, *v)
		}
		in.entry.Detail.Counts = map[string]int{"records": len(out.Records)}
		if more {
			out.Next, err = s.cursor(ctx, in, list, page[len(page)-1].place())
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// ReadVersions returns what a record was before and is now, newest first, each
// version as the caller may see it. Versions that they would not tell apart are
// one. It reports what ReadRecord does.
func (s *Service) ReadVersions(ctx context.Context, c med.Caller, id med.PatientID, which med.RecordID) (*med.RecordPage, error) {
	out := &med.RecordPage{}
	err := s.aboutRecord(ctx, &c, "read", id, which, func(in *entered) error {
		open, err := s.openChart(ctx, in, id, which)
		if err != nil {
			return err
		}
		now, err := open.find(which)
		if err != nil {
			return err
		}
		rows, err := s.db.Versions(ctx, in.ruling.Context, in.ticket, which)
		if err != nil {
			return err
		}
		out.Event, out.Suspect, out.View, out.MaxAge = in.entry.ID, open.suspect, now.view, in.maxAge()
		if int64(len(rows)) < now.row.Version-1 && open.hasManifest {
			out.Suspect = s.doubted(ctx, in, open.key.ID(), errors.New("versions of a record are missing"))
		}
		all := []*openRecord{now}
		for i := range rows {
			r, err := open.open(&rows[i])
			if damaged(err) {
				out.Suspect = s.doubted(ctx, in, open.key.ID(), err)
				continue
			}
			if err != nil {
				return s.suspect(ctx, id, err)
			}
			all = append(all, r)
		}
		in.discloses(out.View, med.RecordFields)
		out.Records, err = open.distinct(all)
		if err != nil {
			return s.suspect(ctx, id, err)
		}
		in.entry.Detail.Counts = map[string]int{"versions": len(out.Records)}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// aboutRecord is through with an entry about a record of the patient, or about
// their records, when none is named.
func (s *Service) aboutRecord(ctx context.Context, c *med.Caller, action string, id med.PatientID, which med.RecordID, work func(*entered) error) error {
	in := &entered{caller: c, entry: audit.New(s.now(), c, action, "record", string(cmp.Or(which, med.RecordID(id))))}
	in.entry.Patient = id
	return s.enter(ctx, in, work)
}

// openedChart is a patient's records while one call looks at them.
type openedChart struct {
	in          *entered
	now         time.Time
	patient     med.PatientID
	relation    med.Relation
	key         *envelope.PatientKey
	records     []*openRecord // that the caller may see
	hasManifest bool
	suspect     bool
}

// openRecord is a record whose header was opened, and what the caller may see of it.
type openRecord struct {
	row    *postgres.RecordRow
	where  envelope.RowID
	sealed *envelope.Row
	head   *sealedHeader
	view   med.View
	seen   bool
	own    med.Authorship
	at     int64 // of care, in Unix milliseconds; the lowest when it is not known
}

// openChart reads the patient's records, or only one, holds the chart against its
// manifest, and opens the headers: of those that the caller may not see, too, for
// only there it says so.
func (s *Service) openChart(ctx context.Context, in *entered, id med.PatientID, which med.RecordID) (*openedChart, error) {
	row, err := s.chartRow(ctx, in, id, which)
	if err != nil {
		return nil, err
	}
	in.entry.PatientPractice = row.Practice
	relation, err := s.treated(ctx, in, relation(in.caller, id, &postgres.PatientRow{Practice: row.Practice, Self: row.Self}))
	if err != nil {
		return nil, err
	}
	if _, err := in.settle(relation); err != nil {
		return nil, err
	}
	if row.KeyState != "active" {
		return nil, med.NotFound.New("No such patient.").Coded("key_destroyed")
	}
	key, err := s.keys.Patient(ctx, in.ruling.Context, envelope.DEKID{Practice: row.Practice, Patient: id, Version: row.DEKVersion})
	if err != nil {
		return nil, err
	}
	open := &openedChart{in: in, now: s.now(), patient: id, relation: relation, key: key, hasManifest: row.Manifest.Version > 0}
	state := &chartState{patient: row.Version, records: make(map[med.RecordID]int64, len(row.Records)), manifest: row.Manifest}
	var damage error
	for i := range row.Records {
		r := &row.Records[i]
		state.records[r.ID] = r.Version
		if r.Sealed == nil {
			continue
		}
		opened, err := open.open(r)
		switch {
		case damaged(err):
			damage = err
		case err != nil:
			return nil, s.suspect(ctx, id, err)
		case opened.seen:
			open.records = append(open.records, opened)
		}
	}
	if damage == nil {
		damage = state.doubt(key)
	} else if which != "" { // it is the one that was asked for
		s.doubted(ctx, in, key.ID(), damage)
		return nil, s.suspect(ctx, id, damage)
	}
	open.suspect = s.doubted(ctx, in, key.ID(), damage)
	return open, nil
}

// damaged reports whether a row did not open because it is not what was written.
func damaged(err error) bool {
	return errors.Is(err, envelope.ErrTampered) || errors.Is(err, envelope.ErrMalformed) || errors.Is(err, envelope.ErrOpen)
}

// chartRow asks the gate for a reading of records, and the database for the rows.
func (s *Service) chartRow(ctx context.Context, in *entered, id med.PatientID, which med.RecordID) (*postgres.ChartRow, error) {
	if err := s.mayRead(ctx, in, gate.Ask{Action: "read", Resource: "record", Patient: id}); err != nil {
		return nil, err
	}
	if err := s.takeTicket(in); err != nil {
		return nil, err
	}
	row, err := s.db.Chart(ctx, in.ruling.Context, in.ticket, id, which)
	if med.KindOf(err) == med.NotFound {
		return nil, s.absent(ctx, in, id)
	}
	return row, err
}

// open opens the header of a row, and settles what the caller may see of it. It
// reports an error for a row that is not what was written.
func (o *openedChart) open(row *postgres.RecordRow) (*openRecord, error) {
	r, err := openRow(o.key, recordRow(o.key.ID().Practice, o.patient, row.ID), row)
	if err != nil {
		return nil, fmt.Errorf("record %s: %w", row.ID, err)
	}
	r.own = o.in.authorship(r.head, o.now)
	d := o.in.ruling.Reads[o.relation].Of(r.head.Kind, r.head.Sensitivity, r.own)
	r.seen, r.view = d.Allow, d.View
	return r, nil
}

func openRow(key *envelope.PatientKey, where envelope.RowID, row *postgres.RecordRow) (*openRecord, error) {
	sealed, err := envelope.ParseRow(row.Sealed)
	if err == nil && sealed.Version() != row.Version {
		err = envelope.ErrTampered
	}
	if err != nil {
		return nil, err
	}
	plain, err := key.OpenField(where, sealed, fieldHeader)
	if err != nil {
		return nil, err
	}
	r := &openRecord{row: row, where: where, sealed: sealed, head: &sealedHeader{}, at: math.MinInt64}
	if err := json.Unmarshal(plain, r.head); err != nil {
		return nil, errors.New("a record's header does not read")
	}
	if at, ok := fhir.Instant(r.head.Start); ok {
		r.at = at.UnixMilli()
	}
	return r, nil
}

// authorship says whether the caller wrote the record, and whether lately.
func (in *entered) authorship(h *sealedHeader, now time.Time) med.Authorship {
	switch {
	case h.By == "" || h.By != actor(in.caller):
		return med.AuthorshipOther
	case now.Sub(time.UnixMilli(h.At)) <= recent:
		return med.AuthorshipOwnRecent
	}
	return med.AuthorshipOwn
}

// find returns the record that was asked for, if the caller may see it.
func (o *openedChart) find(which med.RecordID) (*openRecord, error) {
	for _, r := range o.records {
		if r.row.ID == which {
			return r, nil
		}
	}
	return nil, errNoRecord()
}

func errNoRecord() error { return med.NotFound.New("No such record.") }

// visible lists what is asked for of what the caller may see, newest first.
func (o *openedChart) visible(ask med.RecordAsk) []*openRecord {
	var out []*openRecord
	for _, r := range o.records {
		if !r.head.InError && (ask.Kind == "" || ask.Kind == r.head.Kind) && r.within(ask.From, ask.To) {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b *openRecord) int { return a.place().compare(b.place()) })
	return out
}

// within says whether the care began on one of the days. What has no date began
// on none.
func (r *openRecord) within(from, to med.Day) bool {
	at := time.UnixMilli(r.at).UTC()
	switch {
	case from.IsZero() && to.IsZero():
		return true
	case r.at == math.MinInt64:
		return false
	}
	day := med.DayOf(at)
	return (from.IsZero() || !day.Before(from)) && (to.IsZero() || !to.Before(day))
}

// recordPlace is where a record stands in the list.
type recordPlace struct {
	At int64        `json:"at"`
	ID med.RecordID `json:"id"`
}

func (r *openRecord) place() recordPlace { return recordPlace{r.at, r.row.ID} }

// compare puts newer care first, what has no date last, and equal dates by id.
func (p recordPlace) compare(q recordPlace) int {
	return cmp.Or(cmp.Compare(q.At, p.At), cmp.Compare(p.ID, q.ID))
}

// pageOf returns the records behind a place, at most so many, and whether there
// are more.
func pageOf(all []*openRecord, after *recordPlace, most int) (page []*openRecord, more bool) {
	if after != nil {
		n, _ := slices.BinarySearchFunc(all, *after, func(r *openRecord, p recordPlace) int {
			if c := r.place().compare(p); c != 0 {
				return c
			}
			return -1 // itself was on the page before
		})
		all = all[n:]
	}
	if len(all) > most {
		return all[:most], true
	}
	return all, false
}

// show opens what the view of the record shows; its source only if that is wanted.
func (o *openedChart) show(r *openRecord, source bool) (*med.RecordView, error) {
	out := &med.RecordView{View: r.view, Suspect: o.suspect, Record: r.head.record(r.row.ID, o.patient)}
	out.CreatedAt = r.row.CreatedAt
	for _, f := range []string{fieldValue, fieldNote, fieldSource} {
		if r.view[med.Field(f)] != med.Reveal || f == fieldSource && !source {
			continue
		}
		plain, err := o.key.OpenField(r.where, r.sealed, f)
		if err == nil && plain != nil {
			err = setRecordField(&out.Record, f, plain)
		}
		if err != nil {
			return nil, err
		}
	}
	hideRecord(&out.Record, r.view)
	if whole(r.view, med.RecordFields) {
		out.Version, out.UpdatedAt = r.row.Version, r.row.UpdatedAt
	}
	out.Tag = r.tag()
	return out, nil
}

// tag names what is seen of a record: its version, for whom nothing is hidden
// from, else the versions of the fields that they see.
func (r *openRecord) tag() string {
	t := viewTag{}
	if whole(r.view, med.RecordFields) {
		t.number(r.row.Version)
		return t.String()
	}
	for _, f := range med.RecordFields {
		in := string(f)
		if f != fieldValue && f != fieldNote && f != fieldSource {
			in = fieldHeader
		}
		t.field(f, r.view[f], r.sealed.FieldVersion(in))
	}
	return t.String()
}

// hideRecord takes away what the view does not show. No field of a record has a
// mask: what is not revealed is hidden.
func hideRecord(r *med.Record, v med.View) {
	hidden := func(f med.Field) bool { return v[f] != med.Reveal }
	if hidden(med.FieldKind) {
		r.Kind, r.Type = "", ""
	}
	if hidden(med.FieldCode) {
		r.Codes = nil
	}
	if hidden(med.FieldStatus) {
		r.Status, r.InError, r.Active = "", false, false
	}
	if hidden(med.FieldEffective) {
		r.Start, r.End = "", ""
	}
	if hidden(med.FieldAuthor) {
		r.Author = ""
	}
	if hidden(med.FieldSensitivity) {
		r.Sensitivity = ""
	}
	if hidden(med.FieldSource) {
		r.Type = ""
	}
}

// setRecordField puts an opened field into the record.
func setRecordField(r *med.Record, f string, plain []byte) error {
	switch f {
	case fieldNote:
		r.Note = med.PHI(plain)
	case fieldSource:
		source, err := envelope.Decompress(plain)
		if err != nil {
			return errors.New("a record's source does not read")
		}
		r.Source = med.PHI(source)
	case fieldValue:
		var v sealedValue
		if err := json.Unmarshal(plain, &v); err != nil {
			return errors.New("a record's value does not read")
		}
		r.Value = med.Value{Quantity: med.PHI(v.Quantity), Text: med.PHI(v.Text)}
		if v.Code != nil {
			r.Value.Code = &codesOf([]sealedCode{*v.Code})[0]
		}
	}
	return nil
}

// distinct shows the versions that the caller may see, and of those that look
// alike to them only the oldest: that something changed which they do not see is
// not theirs to know.
func (o *openedChart) distinct(all []*openRecord) ([]med.RecordView, error) {
	var out []med.RecordView
	for _, r := range slices.Backward(all) {
		if !r.seen {
			continue
		}
		v, err := o.show(r, false)
		if err != nil {
			return nil, err
		}
		if len(out) == 0 || !alike(&out[len(out)-1], v) {
			out = append(out, *v)
		}
	}
	slices.Reverse(out)
	return out, nil
}

// alike says whether nobody could tell two views of a record from each other.
func alike(a, b *med.RecordView) bool {
	x, y := a.Record, b.Record
	x.CreatedAt, y.CreatedAt = time.Time{}, time.Time{}
	return reflect.DeepEqual(x, y)
}
