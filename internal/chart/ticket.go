// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/internal/audit"
)

// takeTicket leaves the entry against which PostgreSQL gives a row under a
// strict context: durable before anything is read, so that nothing this
// process is made to do can take it back. It does nothing when the context is
// not strict, and reports AuditUnavailable when the entry is not durable; then
// nothing is read.
func (s *Service) takeTicket(in *entered) error {
	if !in.ruling.Strict || in.ticket != "" {
		return nil
	}
	t := in.entry.Child(s.now(), audit.ReadTicket, audit.AccessGranted)
	t.Parent = in.call()
	t.ResourceType, t.ResourceID = "patient", string(t.Patient)
	if b := t.Detail.BreakGlass; b != nil {
		// The reason is sealed for its own entry; the parent has it.
		t.Detail.BreakGlass = &audit.BreakGlass{Grant: b.Grant, ReasonCode: b.ReasonCode}
	}
	if err := s.trail.Append(t); err != nil {
		return err
	}
	in.ticket = t.ID
	return nil
}

// reading runs what reads of a patient in one transaction under the call's
// context, and against its ticket where that is strict.
func (s *Service) reading(ctx context.Context, in *entered, work func(pgx.Tx) error) error {
	if err := s.takeTicket(in); err != nil {
		return err
	}
	return s.db.InTx(ctx, in.ruling.Context, func(tx pgx.Tx) error {
		if in.ticket != "" {
			if err := s.db.Q.PresentTicket(ctx, tx, string(in.ticket)); err != nil {
				return err
			}
		}
		return work(tx)
	})
}
