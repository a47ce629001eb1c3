// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"context"
	"strings"
	"time"
	"unicode"

	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/postgres"
	"github.com/medirecord/medirecord/internal/postgres/pgdb"
)

// Practice is a practice as the operator sees it.
type Practice struct {
	ID        med.PracticeID
	Name      string
	CreatedAt time.Time
}

// AddPractice makes a practice with its keys. It reports Conflict when there
// is one with that id, and Invalid for a blank or overlong name. The caller is
// the operator.
func (s *Service) AddPractice(ctx context.Context, c med.Caller, id med.PracticeID, name string) error {
	name = strings.TrimSpace(name)
	if name == "" || len(name) > 200 || strings.ContainsFunc(name, unicode.IsControl) {
		return med.Invalid.New("A practice has a name of 1 to 200 characters without control characters.")
	}
	return s.through(ctx, &c, "practice_add", "", func(in *entered) error {
		in.entry.ResourceType, in.entry.ResourceID = "practice", string(id)
		ruling, err := s.gate.Serve(ctx, &c, "practice.add", id)
		if err != nil {
			return err
		}
		in.note(ruling)
		// Keys first: a practice without keys could hold nothing. Keys that are
		// there already are from an attempt that died before the next step.
		if err := s.keys.AddPractice(ctx, ruling.Context, id); err != nil && med.KindOf(err) != med.Conflict {
			return err
		}
		err = s.db.InTx(ctx, ruling.Context, func(tx pgx.Tx) error {
			if err := s.db.Q.AddPractice(ctx, tx, pgdb.AddPracticeParams{ID: string(id), Name: name, EventID: string(in.entry.ID)}); err != nil {
				return err
			}
			in.entry.Outcome = audit.Success
			return appendTx(ctx, tx, in.entry)
		})
		if postgres.Duplicate(err) {
			return med.Conflict.New("There is a practice with this id already.")
		}
		in.written = err == nil
		return err
	})
}

// Practices lists the practices, oldest first. The caller is the operator.
func (s *Service) Practices(ctx context.Context, c med.Caller) ([]Practice, error) {
	var out []Practice
	err := s.through(ctx, &c, "practice_list", "", func(in *entered) error {
		in.entry.ResourceType, in.entry.ResourceID = "practice", "*"
		ruling, err := s.gate.Serve(ctx, &c, "practice.list", "")
		if err != nil {
			return err
		}
		in.note(ruling)
		return s.db.InTx(ctx, ruling.Context, func(tx pgx.Tx) error {
			rows, err := s.db.Q.Practices(ctx, tx)
			for _, r := range rows {
				out = append(out, Practice{med.PracticeID(r.ID), r.Name, r.CreatedAt})
			}
			return err
		})
	})
	return out, err
}
