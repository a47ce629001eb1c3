// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"context"
	"slices"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/gate"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/postgres/pgdb"
)

// maxFound is how many patients a search shows at most. There are more with one
// number only where somebody made them up.
const maxFound = 50

// atOnce is how many patients of one list are read at a time.
const atOnce = 32

// ListPatients returns a page of the patients of the caller's practice, in the
// order of their ids, with their names as the caller may see them. Each patient
// shown is read under a context and with an entry of their own. It reports
// Forbidden, MFARequired, and Invalid for a cursor of another list.
func (s *Service) ListPatients(ctx context.Context, c med.Caller, p med.Page) (*med.PatientPage, error) {
	out := &med.PatientPage{}
	err := s.looking(ctx, &c, func(in *entered, _ med.Decision) error {
		out.Event = in.entry.ID
		list := listing{Route: "patients"}
		var after string
		if err := s.resume(ctx, in, list, p.Cursor, &after); err != nil {
			return err
		}
		var ids []string
		err := s.db.InTx(ctx, in.ruling.Context, func(tx pgx.Tx) (err error) {
			ids, err = s.db.Q.ListPatients(ctx, tx, pgdb.ListPatientsParams{After: after, Most: p.Rows()})
			return err
		})
		if err != nil {
			return err
		}
		if out.Patients, err = s.each(ctx, in, ids, []med.Field{med.FieldName}); err != nil {
			return err
		}
		out.Suspect = anySuspect(out.Patients)
		if len(ids) == int(p.Rows()) {
			out.Next, err = s.cursor(ctx, in, list, ids[len(ids)-1])
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// SearchPatients returns the patients of the caller's practice whose value is the
// one of the probe, by the blind index by: mrn, ssn, phone, email, member_id or
// family_dob. What was found is opened and compared once more. The caller may
// see in clear what they search by, of the patient found too: else it reports
// Forbidden, or leaves the patient out. It reports Invalid for a value that is
// in no index. The entry says by which fields, and not for what.
func (s *Service) SearchPatients(ctx context.Context, c med.Caller, by string, probe med.Patient) (*med.PatientPage, error) {
	out := &med.PatientPage{}
	err := s.looking(ctx, &c, func(in *entered, d med.Decision) error {
		out.Event = in.entry.ID
		fields := indexed[by]
		in.entry.Detail.Searched = fields
		if fields != nil && d.Reason == "identity_only" && !whole(d.View, fields) {
			return med.Forbidden.New("Without a reason you search by who somebody is only: say why you look, with a code in the header X-Access-Reason.").Coded("reason_required")
		}
		if fields == nil || !whole(d.View, fields) {
			return med.Forbidden.New("You may search by what you see in clear only.").Coded("field_not_searchable")
		}
		normal := normalOf(by, &probe)
		if normal == "" {
			return med.Invalid.New("").With(med.FieldError{Pointer: "/" + searchPointers[by], Reason: "not a whole one: nobody can be found by it"})
		}
		ids, err := s.candidates(ctx, in, by, normal)
		if err != nil {
			return err
		}
		found, err := s.each(ctx, in, ids, slices.Concat([]med.Field{med.FieldName, med.FieldDOB}, without(fields, med.FieldName, med.FieldDOB)))
		if err != nil {
			return err
		}
		for _, v := range found {
			if whole(v.View, fields) && normalOf(by, &v.Patient) == normal {
				out.Patients = append(out.Patients, v)
			}
		}
		out.Suspect = anySuspect(found) // also who was found and is not like that, for their row may be an old one
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func anySuspect(in []*med.PatientView) bool {
	return slices.ContainsFunc(in, func(v *med.PatientView) bool { return v.Suspect })
}

// searchPointers say where in the body the value of an index is.
var searchPointers = map[string]string{
	"mrn": "mrn", "ssn": "ssn", "phone": "phone", "email": "email", "member_id": "member_id", "family_dob": "family",
}

func without(fields []med.Field, not ...med.Field) []med.Field {
	return slices.DeleteFunc(slices.Clone(fields), func(f med.Field) bool { return slices.Contains(not, f) })
}

// looking runs one call that looks for patients. A broken glass looks for nobody.
func (s *Service) looking(ctx context.Context, c *med.Caller, work func(*entered, med.Decision) error) error {
	return s.through(ctx, c, "search", "", func(in *entered) error {
		in.entry.ResourceID = "*"
		if _, err := emergency(in.caller); err != nil {
			return err
		}
		if in.caller.Is(med.RoleBreakGlass) {
			return med.Forbidden.New("")
		}
		if err := s.may(ctx, in, gate.Ask{Action: "search", Resource: "patient"}); err != nil {
			return err
		}
		d, err := in.settle(med.RelationSamePractice)
		if err != nil {
			return err
		}
		return work(in, d)
	})
}

// candidates are the ids that the index has for a value.
func (s *Service) candidates(ctx context.Context, in *entered, by, normal string) (ids []string, err error) {
	index, err := s.keys.Index(ctx, in.ruling.Context, in.caller.Practice)
	if err != nil {
		return nil, err
	}
	tag, err := tagOf(index, by, normal)
	if err != nil {
		return nil, err
	}
	err = s.db.InTx(ctx, in.ruling.Context, func(tx pgx.Tx) (err error) {
		ids, err = s.db.Q.SearchPatients(ctx, tx, pgdb.SearchPatientsParams{Field: by, Tag: tag, Most: maxFound})
		return err
	})
	return ids, err
}

// each reads the patients as parts of the call, many at once so that their
// questions travel together. A patient whom the caller may not read, or who is
// gone meanwhile, is left out; any other failure is the call's.
func (s *Service) each(ctx context.Context, in *entered, ids []string, want []med.Field) ([]*med.PatientView, error) {
	views, errs := make([]*med.PatientView, len(ids)), make([]error, len(ids))
	var group sync.WaitGroup
	room := make(chan struct{}, atOnce)
	for i, id := range ids {
		part := &entered{caller: in.caller, entry: in.entry.Child(s.now(), "search", audit.Failure)}
		part.entry.Patient, part.entry.ResourceID = med.PatientID(id), id
		part.entry.Detail.Searched = in.entry.Detail.Searched
		room <- struct{}{}
		group.Go(func() {
			defer func() { <-room }()
			errs[i] = s.enter(ctx, part, func(part *entered) (err error) {
				views[i], err = s.readPatient(ctx, part, med.PatientID(id), want)
				return err
			})
		})
	}
	group.Wait()
	out := make([]*med.PatientView, 0, len(ids))
	for i := range ids {
		switch kind := med.KindOf(errs[i]); {
		case errs[i] == nil:
			out = append(out, views[i])
		case kind != med.Forbidden && kind != med.NotFound:
			return nil, errs[i]
		}
	}
	in.entry.Detail.Counts = map[string]int{"patients": len(out)}
	return out, nil
}
