// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/envelope"
	"github.com/medirecord/medirecord/internal/gate"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/postgres"
	"github.com/medirecord/medirecord/internal/postgres/pgdb"
)

// RecordDisclosure writes down that data of the patient was disclosed, in one
// transaction with its entry, and returns the disclosure with its id. The ID it
// is given is kept: who tries once more with the same one gets Conflict, and
// has not recorded it twice; who sends the same once more under the same key gets
// what the first answer told, id and version. Version, Event and RecordedAt do not count. With a
// suspension it takes an admin or officer. It reports Invalid for one that
// would leave its accounting incomplete, Forbidden, MFARequired, Conflict for a
// key that came with something else, and NotFound for an id nobody has.
func (s *Service) RecordDisclosure(ctx context.Context, c med.Caller, id med.PatientID, d med.Disclosure, o med.Once) (*med.Disclosure, error) {
	return s.discloses(ctx, c, id, "disclose", func(in *entered) (*med.Disclosure, error) {
		action := "create"
		if len(d.Suspensions) > 0 || in.caller.Is(med.RoleAdmin) || in.caller.Is(med.RoleOfficer) {
			// Suspended or not: the entry's MAC names the action, and tells
			// the patient of no suspension.
			action = "amend"
		}
		if err := s.mayDisclose(ctx, in, id, action); err != nil {
			return nil, err
		}
		again, err := s.onceHere(ctx, in, o)
		if err != nil {
			return nil, err
		}
		if made, err := again.made(ctx, s, in); err != nil || made != "" {
			return disclosedBefore(in, made, err)
		}
		d.Version = 1
		if d.ID == "" {
			d.ID = med.DisclosureID(med.NewUUID(s.now()))
		}
		if !med.IsUUID(string(d.ID)) {
			return nil, med.Invalid.New("").With(med.FieldError{Pointer: "/id", Reason: "not a UUID"})
		}
		d.ID = canonical(d.ID)
		err = s.writeDisclosure(ctx, in, id, &d, again)
		if made, err := again.faster(ctx, s, in, err); err != nil || made != "" {
			return disclosedBefore(in, made, err)
		}
		return &d, err
	})
}

// disclosedBefore is what the first of the same requests was told. Nothing is
// read for it: that somebody amended it since, which an agency may have asked
// for, is not for everybody who records.
func disclosedBefore(in *entered, made string, err error) (*med.Disclosure, error) {
	if err != nil {
		return nil, err
	}
	in.entry.PatientPractice = in.caller.Practice
	in.entry.ResourceType, in.entry.ResourceID, in.entry.Detail.Reason = "disclosure", made, "made_before"
	return &med.Disclosure{ID: med.DisclosureID(made), Version: 1, Event: in.entry.ID}, nil
}

// AmendDisclosure writes the next version of a disclosure: corrected, marked as
// entered in error, or with an agency's statement that the patient is not to be
// told of it for a time. It takes an admin or officer. It reports Invalid for
// an amendment that changes nothing or leaves the accounting incomplete,
// Conflict when somebody else was amending it meanwhile, and what
// RecordDisclosure does.
//
// Its entry says that the disclosure was amended and not how: the patient
// reads the trail, and would learn of a suspension after all.
func (s *Service) AmendDisclosure(ctx context.Context, c med.Caller, id med.PatientID, which med.DisclosureID, change med.Amendment) (*med.Disclosure, error) {
	return s.discloses(ctx, c, id, "amend_disclosure", func(in *entered) (*med.Disclosure, error) {
		if err := s.mayDisclose(ctx, in, id, "amend"); err != nil {
			return nil, err
		}
		d, err := s.findDisclosure(ctx, in, id, which)
		if err != nil {
			return nil, err
		}
		if err := d.Amend(change); err != nil {
			return nil, err
		}
		return d, s.writeDisclosure(ctx, in, id, d, nil)
	})
}

// discloses runs one call that writes a disclosure.
func (s *Service) discloses(ctx context.Context, c med.Caller, id med.PatientID, action string, work func(*entered) (*med.Disclosure, error)) (*med.Disclosure, error) {
	var out *med.Disclosure
	err := s.through(ctx, &c, action, id, func(in *entered) (err error) {
		out, err = work(in)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// mayDisclose asks the gate and settles how the caller stands to the patient.
func (s *Service) mayDisclose(ctx context.Context, in *entered, id med.PatientID, action string) error {
	if _, err := emergency(in.caller); err != nil {
		return err
	}
	if err := s.may(ctx, in, gate.Ask{Action: action, Resource: "disclosure", Patient: id}); err != nil {
		return err
	}
	if _, err := in.settle(in.relationTo(id)); err != nil {
		return err
	}
	// Who only writes takes one as well: by their tickets, too, what an agency
	// had suspended must not be told from the rest. 45 CFR 164.528(a)(2)
	return s.takeTicket(in)
}

// relationTo is how the caller stands to a patient of their own practice, as
// far as their token says; whether the patient is one is the database's to say.
func (in *entered) relationTo(id med.PatientID) med.Relation {
	if id != "" && in.caller.Patient == id {
		return med.RelationSelf
	}
	return med.RelationSamePractice
}

// writeDisclosure seals the disclosure and writes it with its entry.
func (s *Service) writeDisclosure(ctx context.Context, in *entered, id med.PatientID, d *med.Disclosure, again *once) error {
	if err := d.Check(med.DayOf(s.now())); err != nil {
		return err
	}
	practice := in.caller.Practice
	key, err := s.keys.Disclosures(ctx, in.ruling.Context, practice, 0)
	if err != nil {
		return err
	}
	plain, err := json.Marshal(sealedDisclosureOf(d))
	if err != nil {
		return fmt.Errorf("disclosure %s: %w", d.ID, err)
	}
	sealed, err := key.Seal(envelope.DisclosurePlace{Patient: id, ID: d.ID, Version: d.Version}, plain)
	if err != nil {
		return fmt.Errorf("sealing disclosure %s: %w", d.ID, err)
	}
	in.entry.PatientPractice = practice
	err = s.db.InTx(ctx, in.ruling.Context, func(tx pgx.Tx) error {
		if d.Version == 1 {
			if err := s.ofThisPractice(ctx, tx, in, id); err != nil {
				return err
			}
		}
		if err := s.db.Q.AddDisclosure(ctx, tx, pgdb.AddDisclosureParams{
			ID: string(d.ID), Version: d.Version, PatientID: string(id), PracticeID: string(practice), Sealed: sealed,
			Author: actor(in.caller), EventID: string(in.entry.ID),
		}); err != nil {
			return err
		}
		if err := again.remember(ctx, tx, s, in, string(d.ID)); err != nil {
			return err
		}
		in.entry.ResourceType, in.entry.ResourceID = "disclosure", string(d.ID)
		in.entry.Outcome = audit.Success
		return appendTx(ctx, tx, in.entry)
	})
	if postgres.Duplicate(err) {
		code := "amended_meanwhile"
		if d.Version == 1 {
			code = "recorded_before"
		}
		return med.Conflict.Because(err).Coded(code)
	}
	in.written = err == nil
	d.Event, d.RecordedAt = in.entry.ID, in.entry.OccurredAt
	return err
}

// ofThisPractice reports NotFound for an id nobody has, and Forbidden for
// another practice's patient.
func (s *Service) ofThisPractice(ctx context.Context, tx pgx.Tx, in *entered, id med.PatientID) error {
	practice, err := s.db.Q.PracticeOf(ctx, tx, string(id))
	switch {
	case err != nil:
		return err
	case practice == "":
		return med.NotFound.New("No such patient.")
	case practice != string(in.caller.Practice):
		in.entry.PatientPractice = med.PracticeID(practice)
		in.entry.Detail.Reason = "other_practice"
		return errOtherPractice()
	}
	return nil
}

// canonical is the form of a UUID in which PostgreSQL gives it back: what is
// sealed is bound to it.
func canonical(id med.DisclosureID) med.DisclosureID {
	return med.DisclosureID(strings.ToLower(string(id)))
}

// findDisclosure returns the last version of a disclosure of this patient. It
// reports NotFound.
func (s *Service) findDisclosure(ctx context.Context, in *entered, id med.PatientID, which med.DisclosureID) (*med.Disclosure, error) {
	if !med.IsUUID(string(which)) {
		return nil, med.NotFound.New("No such disclosure.")
	}
	which = canonical(which)
	var row pgdb.DisclosureRow
	err := s.reading(ctx, in, func(tx pgx.Tx) (err error) {
		row, err = s.db.Q.Disclosure(ctx, tx, pgdb.DisclosureParams{ID: string(which), PracticeID: string(in.caller.Practice), PatientID: string(id)})
		if errors.Is(err, pgx.ErrNoRows) {
			if err := s.ofThisPractice(ctx, tx, in, id); err != nil {
				return err
			}
			return med.NotFound.New("No such disclosure.")
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	keys := disclosureKeys{}
	return s.openDisclosure(ctx, in, keys, id, pgdb.DisclosuresRow{
		ID: string(which), Version: row.Version, Sealed: row.Sealed, EventID: row.EventID, CreatedAt: row.CreatedAt,
	})
}

// disclosureKeys are the versions of the practice's key that one call needed.
type disclosureKeys map[int32]*envelope.DisclosureKey

func (s *Service) openDisclosure(ctx context.Context, in *entered, keys disclosureKeys, id med.PatientID, row pgdb.DisclosuresRow) (*med.Disclosure, error) {
	version, err := envelope.DisclosureKeyVersion(row.Sealed)
	if err != nil {
		return nil, s.suspect(ctx, id, err)
	}
	if keys[version] == nil {
		if keys[version], err = s.keys.Disclosures(ctx, in.ruling.Context, in.caller.Practice, version); err != nil {
			return nil, err
		}
	}
	plain, err := keys[version].Open(envelope.DisclosurePlace{Patient: id, ID: med.DisclosureID(row.ID), Version: row.Version}, row.Sealed)
	if err != nil {
		return nil, s.suspect(ctx, id, err)
	}
	defer clear(plain)
	var sealed sealedDisclosure
	if err := json.Unmarshal(plain, &sealed); err != nil {
		return nil, s.suspect(ctx, id, errors.New("a disclosure does not read"))
	}
	d, ok := sealed.disclosure()
	if !ok {
		return nil, s.suspect(ctx, id, errors.New("a disclosure has a day that is none"))
	}
	d.ID, d.Version, d.Event, d.RecordedAt = med.DisclosureID(row.ID), row.Version, med.EventID(row.EventID), row.CreatedAt.UTC()
	return d, nil
}

// What is inside a sealed disclosure.
type (
	sealedDisclosure struct {
		Basis       med.Basis          `json:"basis"`
		Recipient   string             `json:"recipient"`
		Address     string             `json:"address,omitempty"`
		Purpose     string             `json:"purpose,omitempty"`
		Request     string             `json:"request,omitempty"`
		Description string             `json:"description"`
		First       string             `json:"first"`
		Last        string             `json:"last"`
		Frequency   med.Frequency      `json:"frequency,omitempty"`
		Count       int                `json:"count,omitempty"`
		InError     bool               `json:"in_error,omitempty"`
		Suspensions []sealedSuspension `json:"suspensions,omitempty"`
	}
	sealedSuspension struct {
		Agency    med.Agency    `json:"agency"`
		Official  string        `json:"official"`
		Statement med.Statement `json:"statement"`
		StatedOn  string        `json:"stated_on"`
		Until     string        `json:"until"`
	}
)

func sealedDisclosureOf(d *med.Disclosure) sealedDisclosure {
	out := sealedDisclosure{
		Basis: d.Basis, Recipient: d.Recipient.Reveal(), Address: d.Address.Reveal(), Purpose: d.Purpose.Reveal(), Request: d.Request.Reveal(),
		Description: d.Description.Reveal(), First: d.First.Reveal(), Last: d.Last.Reveal(), Frequency: d.Frequency, Count: d.Count, InError: d.InError,
	}
	for _, x := range d.Suspensions {
		out.Suspensions = append(out.Suspensions, sealedSuspension{x.Agency, x.Official.Reveal(), x.Statement, x.StatedOn.Reveal(), x.Until.Reveal()})
	}
	return out
}

func (d *sealedDisclosure) disclosure() (*med.Disclosure, bool) {
	all := true
	day := func(text string) med.Day {
		v, ok := med.ParseDay(text)
		all = all && ok
		return v
	}
	out := &med.Disclosure{
		Basis: d.Basis, Recipient: med.PHI(d.Recipient), Address: med.PHI(d.Address), Purpose: med.PHI(d.Purpose), Request: med.PHI(d.Request),
		Description: med.PHI(d.Description), First: day(d.First), Last: day(d.Last), Frequency: d.Frequency, Count: d.Count, InError: d.InError,
	}
	for _, x := range d.Suspensions {
		out.Suspensions = append(out.Suspensions, med.Suspension{
			Agency: x.Agency, Official: med.PHI(x.Official), Statement: x.Statement, StatedOn: day(x.StatedOn), Until: day(x.Until),
		})
	}
	return out, all
}
