// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"github.com/medirecord/medirecord/internal/audit"
)

// takeTicket leaves the entry against which PostgreSQL gives a row under a
// strict context: durable before anything is read, so that nothing this
// process is made to do can take it back. It does nothing when the context is
// not strict, and reports AuditUnavailable when the entry is not durable; then
// nothing is read.
func (s *Service) takeTicket(in *entered) error {
	if !in.ruling.Strict {
		return nil
	}
	t := in.entry.Child(s.now(), audit.ReadTicket, audit.AccessGranted)
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
