// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"context"
	"encoding/hex"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/gate"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/postgres"
	"github.com/medirecord/medirecord/internal/postgres/pgdb"
	"github.com/medirecord/medirecord/internal/trail"
)

// ReadCheckpoint returns the newest head of the log: one that the witnesses
// cosigned, if there is one. It is for the practice's officer and admin with
// MFA, and reports NotFound before the first.
func (s *Service) ReadCheckpoint(ctx context.Context, c med.Caller) (*med.Checkpoint, error) {
	var out med.Checkpoint
	entry := audit.New(s.now(), &c, "read_audit", "log", "checkpoint")
	err := s.enter(ctx, &entered{caller: &c, entry: entry}, func(in *entered) error {
		if err := s.mayReadTrail(ctx, in); err != nil {
			return err
		}
		return s.db.InTx(ctx, in.ruling.Context, func(tx pgx.Tx) error {
			h, err := trail.NewestHead(ctx, tx)
			if err != nil {
				return sealedSoon(err)
			}
			out = checkpointOf(h)
			return nil
		})
	})
	out.Event = entry.ID
	return &out, err
}

// mayReadTrail asks whether the caller may read their practice's trail.
func (s *Service) mayReadTrail(ctx context.Context, in *entered) error {
	if _, err := emergency(in.caller); err != nil {
		return err
	}
	if err := s.may(ctx, in, gate.Ask{Action: "read", Resource: "audit"}); err != nil {
		return err
	}
	_, err := in.settle(med.RelationSamePractice)
	return err
}

func checkpointOf(h *trail.Head) med.Checkpoint {
	c := med.Checkpoint{Epoch: int(h.Epoch), Origin: h.Origin, Size: h.Size, Note: h.Note, SignedAt: h.SignedAt}
	if h.Cosigned != nil {
		c.CosignedAt = *h.Cosigned
	}
	return c
}

// sealedSoon tells a caller to come back.
func sealedSoon(err error) error {
	if errors.Is(err, trail.ErrUnsealed) {
		return med.NotFound.New("The entry is not sealed yet; ask again in a few seconds.").Caused(err).Coded("not_sealed")
	}
	return err
}

// uuidSlack is by how much the time in an entry's id may differ from when it
// occurred.
const uuidSlack = 15 * time.Minute

// ProveEntry returns the proof that an entry is in the log: for who made the
// request that it tells of, for the patient whom it is about, and for officer
// and admin with MFA of a practice that it concerns. It reports NotFound for
// every other entry, existing or not, and with the code not_sealed for the
// seconds before it is sealed.
func (s *Service) ProveEntry(ctx context.Context, c med.Caller, id med.EventID) (*med.EntryProof, error) {
	out := &med.EntryProof{Entry: id}
	entry := audit.New(s.now(), &c, "prove", "entry", string(id))
	err := s.enter(ctx, &entered{caller: &c, entry: entry}, func(in *entered) error {
		out.Event = entry.ID
		return s.proveEntry(ctx, in, out)
	})
	return out, err
}

func (s *Service) proveEntry(ctx context.Context, in *entered, out *med.EntryProof) error {
	if _, err := emergency(in.caller); err != nil {
		return err
	}
	ask, relation := gate.Ask{Action: "prove", Resource: "audit"}, med.RelationSamePractice
	if in.caller.Only(med.RolePatient) { // by who they are, not by what they asked for
		ask, relation = gate.Ask{Action: "read", Resource: "audit", Patient: in.caller.Patient}, med.RelationSelf
		in.entry.Patient = in.caller.Patient
	}
	if err := s.may(ctx, in, ask); err != nil {
		return err
	}
	if _, err := in.settle(relation); err != nil {
		return err
	}
	at := timeOf(out.Entry)
	return s.db.InTx(ctx, in.ruling.Context, func(tx pgx.Tx) error {
		place, err := s.db.Q.PlaceOfEntry(ctx, tx, pgdb.PlaceOfEntryParams{EventID: string(out.Entry), Since: at.Add(-uuidSlack), Until: at.Add(uuidSlack)})
		if errors.Is(err, pgx.ErrNoRows) {
			return med.NotFound.New("No such entry.")
		}
		if err != nil {
			return err
		}
		xid, err := strconv.ParseUint(place.Tx, 10, 64)
		if err != nil {
			return err
		}
		p, err := trail.Prove(ctx, tx, place.Epoch, xid, out.Entry)
		if err != nil {
			return sealedSoon(err)
		}
		out.Index, out.Text, out.Head = p.Index, p.Text, checkpointOf(p.Head)
		return nil
	})
}

// timeOf is the time that a UUIDv7 begins with. An id that is none is of no time.
func timeOf(id med.EventID) time.Time {
	b, err := hex.DecodeString(strings.ReplaceAll(string(id), "-", ""))
	if err != nil || len(b) != 16 {
		return time.Time{}
	}
	var ms int64
	for _, x := range b[:6] {
		ms = ms<<8 | int64(x)
	}
	return time.UnixMilli(ms)
}

// ProveAccesses returns the proof that a list of accesses to a patient's record
// leaves nothing out: the leaf hash of every entry about them, and how the
// patient map of a signed head holds exactly those. It is for whom ReadAccesses
// is.
func (s *Service) ProveAccesses(ctx context.Context, c med.Caller, id med.PatientID) (*med.WholeProof, error) {
	out := &med.WholeProof{Patient: id}
	err := s.through(ctx, &c, "prove", id, func(in *entered) error {
		out.Event = in.entry.ID
		return s.proveAccesses(ctx, in, id, out)
	})
	return out, err
}

// proofTries is how often a proof waits for the head over a batch that was
// sealed a moment ago.
const (
	proofTries = 20
	proofPause = 50 * time.Millisecond
)

func (s *Service) proveAccesses(ctx context.Context, in *entered, id med.PatientID, out *med.WholeProof) error {
	// The same door as the list: what it refuses is refused here, in its words.
	if _, _, err := s.readAccesses(ctx, in, id, med.Page{Limit: 1}); err != nil {
		return err
	}
	var whole *trail.Whole
	for try := range proofTries {
		err := s.db.InTx(ctx, in.ruling.Context, func(tx pgx.Tx) (err error) {
			whole, err = trail.ProveWhole(ctx, tx, id)
			return err
		})
		if err == nil {
			break
		}
		if postgres.Refused(err) {
			// Somebody asked for this id before, so there is a list; but it is no patient's here.
			return med.NotFound.New("No such patient.")
		}
		if !errors.Is(err, trail.ErrUnsealed) || try == proofTries-1 {
			return sealedSoon(err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(proofPause):
		}
	}
	in.entry.Detail.Counts = map[string]int{"entries": len(whole.Entries)}
	return fillWhole(out, whole)
}

// fillWhole hands the proof on, unless it does not hold: then the trail was
// tampered with, or entries are pruned, and a list must not be called whole.
func fillWhole(out *med.WholeProof, w *trail.Whole) error {
	chain := audit.PatientHead{Key: w.Map.Head.Key}
	for _, e := range w.Entries {
		chain.Add(e.Hash)
		out.Entries = append(out.Entries, med.EntryHash{Entry: e.ID, Hash: e.Hash[:]})
	}
	if chain != w.Map.Head {
		return med.Internal.Because(errors.New("the entries about a patient are not those that the patient map holds")).Coded("integrity")
	}
	out.Head = checkpointOf(w.Head)
	for _, h := range w.Map.Siblings {
		out.Siblings = append(out.Siblings, h[:])
	}
	if o := w.Map.Other; o != nil {
		out.Other = &med.MapLeaf{Key: o.Key[:], Head: o.Head[:], Count: o.Count}
	}
	return nil
}

// Tile returns the first w hashes of a tile of the log (C2SP tlog-tiles); nil
// when there is no such tile. It is for officers, and admins with MFA. There are
// only hashes in it, the same for everybody, so it needs no context, and it
// leaves no entry: a mirror would make the log longer by reading it.
func (s *Service) Tile(ctx context.Context, c med.Caller, epoch int32, id audit.TileID, w int) ([]byte, error) {
	switch {
	case c.Is(med.RoleOfficer), c.Is(med.RoleAdmin) && c.MFA != med.MFANone:
	case c.Is(med.RoleAdmin):
		return nil, med.MFARequired.New("")
	default:
		return nil, med.Forbidden.New("")
	}
	return trail.Tile(ctx, s.db.Pool(), epoch, id, w)
}
