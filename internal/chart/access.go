// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/internal/envelope"
	"github.com/medirecord/medirecord/internal/gate"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/postgres/pgdb"
)

// ReadAccessLog returns the newest entries about a patient, at most limit, and
// the id of the entry that this reading left. It is the guide's face of the
// trail, for an admin with MFA; break-glass reasons are opened. It reports
// Forbidden, for the admin's own record too, MFARequired, and NotFound for an
// id that neither exists nor has entries.
func (s *Service) ReadAccessLog(ctx context.Context, c med.Caller, id med.PatientID, limit int) ([]med.AccessEvent, med.EventID, error) {
	var out []med.AccessEvent
	var event med.EventID
	err := s.through(ctx, &c, "read_audit", id, func(in *entered) (err error) {
		event = in.entry.ID
		out, err = s.readAccessLog(ctx, in, id, limit)
		return err
	})
	if err != nil {
		return nil, "", err
	}
	return out, event, nil
}

func (s *Service) readAccessLog(ctx context.Context, in *entered, id med.PatientID, limit int) ([]med.AccessEvent, error) {
	if _, err := emergency(in.caller); err != nil {
		return nil, err
	}
	// This face is the admin's (the guide's RequireRole("admin")); an officer
	// has /api/v1/audit/logs.
	if !in.caller.Is(med.RoleAdmin) {
		return nil, med.Forbidden.New("")
	}
	if err := s.may(ctx, in, gate.Ask{Action: "read", Resource: "audit", Patient: id}); err != nil {
		return nil, err
	}
	if _, err := in.settle(med.RelationSamePractice); err != nil {
		return nil, err
	}
	var rows []pgdb.PatientEventsRow
	var practice string
	patient := string(id)
	err := s.db.InTx(ctx, in.ruling.Context, func(tx pgx.Tx) (err error) {
		if err := s.notOwnRecord(ctx, tx, id); err != nil {
			return err
		}
		if practice, err = s.db.Q.PracticeOf(ctx, tx, patient); err != nil {
			return err
		}
		rows, err = s.db.Q.PatientEvents(ctx, tx, pgdb.PatientEventsParams{PatientID: &patient, MaxRows: int32(limit)}) //nolint:gosec // at most 200
		return err
	})
	if err != nil {
		return nil, err
	}
	in.entry.PatientPractice = med.PracticeID(practice)
	switch {
	case practice != "" && practice != string(in.caller.Practice):
		in.entry.Detail.Reason = "other_practice"
		return nil, errOtherPractice()
	case practice == "" && len(rows) == 0:
		return nil, med.NotFound.New("No such patient.")
	}
	in.entry.Detail.Counts = map[string]int{"entries": len(rows)}
	return s.accessEvents(ctx, in, rows)
}

// notOwnRecord reports Forbidden when the context, by its token or by a link,
// is the patient's own: nobody reaches their own record but as its patient, and
// the patient's view of the trail is ReadAccesses.
func (s *Service) notOwnRecord(ctx context.Context, tx pgx.Tx, id med.PatientID) error {
	scope, err := s.db.Q.TrailScope(ctx, tx)
	if err != nil {
		return err
	}
	if slices.Contains(scope, "patient|"+string(id)) {
		return med.Forbidden.New("Who accessed your own record is under /api/v1/patients/{id}/accesses.").Coded("own_record")
	}
	return nil
}

func (s *Service) accessEvents(ctx context.Context, in *entered, rows []pgdb.PatientEventsRow) ([]med.AccessEvent, error) {
	out := make([]med.AccessEvent, 0, len(rows))
	for _, r := range rows {
		d, _ := s.detail(ctx, r.EventID, r.Detail, nil)
		e := med.AccessEvent{
			ID: med.EventID(r.EventID), Timestamp: r.OccurredAt.UTC(), Actor: r.ActorSubject, Action: r.Action,
			Resource: r.ResourceType + "/" + r.ResourceID, Outcome: r.Outcome, BreakGlass: r.BreakGlass,
			Clear: d.Clear, Masked: d.Masked, Hidden: d.Hidden, Changed: d.Changed,
		}
		if d.BreakGlass != nil && len(d.BreakGlass.Sealed) > 0 {
			var err error
			if e.Reason, err = s.openReason(ctx, in, e.ID, d.BreakGlass.Sealed); err != nil {
				return nil, err
			}
		}
		out = append(out, e)
	}
	return out, nil
}

// openReason opens what was written about broken glass under the audit key of the
// caller's practice. Of an access to another practice's patient the reason is
// theirs to read, and stays closed; so does what was never sealed, which must not
// keep the entries around it from being read.
func (s *Service) openReason(ctx context.Context, in *entered, event med.EventID, sealed []byte) (med.PHI, error) {
	text, err := s.openText(ctx, in, in.caller.Practice, event, sealed)
	if code := med.CodeOf(err); code == "integrity" || code == "key_missing" {
		return "", nil
	}
	return text, err
}

// openText opens what was written about broken glass, a reason or a note, for
// the entry under which it was sealed, by the audit key of a practice.
func (s *Service) openText(ctx context.Context, in *entered, practice med.PracticeID, event med.EventID, sealed []byte) (med.PHI, error) {
	version, err := envelope.ReasonKeyVersion(sealed)
	if err != nil {
		return "", med.Internal.Because(err).Coded("integrity")
	}
	key, err := s.keys.Audit(ctx, in.ruling.Context, practice, version)
	if err != nil {
		return "", err
	}
	text, err := key.Open(event, sealed)
	if err != nil {
		return "", med.Internal.Because(err).Coded("integrity")
	}
	return text, nil
}
