// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"context"
	"log/slog"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/internal/postgres"
	"github.com/medirecord/medirecord/internal/postgres/pgdb"
	"github.com/medirecord/medirecord/internal/trail"
)

// kind says what is wrong.
type kind string

// Kinds of flags, as the database knows them.
const (
	kindMAC       kind = "mac"       // the entry is not of the context it names, or names none where it must
	kindUnentered kind = "unentered" // no entry carries the context
	kindUnknown   kind = "unknown"   // the entry cannot be checked: the key, or it itself, is gone
	kindLost      kind = "lost"      // so many contexts were dropped before they were checked
	kindExcess    kind = "excess"    // more patients within an hour than anybody's work needs
	kindAltered   kind = "altered"   // the entry is not the one that was sealed
)

var kinds = []kind{kindMAC, kindUnentered, kindUnknown, kindLost, kindExcess, kindAltered}

// meaning is what the log says of each kind.
var meaning = map[kind]string{
	kindMAC:       "entries of the trail are not of the contexts they name: the API frames somebody, or hides who it read",
	kindUnentered: "contexts were minted and no entry carries them: something was read without a trace, or the trail was out",
	kindUnknown:   "entries of the trail cannot be held against their contexts: they are gone, or the key is",
	kindLost:      "contexts were dropped by the sidecar before they were checked: the worker was away too long",
	kindAltered:   "entries of the trail are not those that were sealed: somebody rewrote them in the database",
	kindExcess:    "somebody asked for more patients within an hour than anybody's work needs",
}

// flag is what was noticed. Its strings may be an attacker's.
type flag struct {
	kind     kind
	cause    string
	epoch    int32 // 0: about no sealed entry
	index    int64
	event    string
	nonce    string
	issuer   string
	subject  string
	practice string
	patient  string
	number   int64
}

func flagOf(e *seen, k kind) flag {
	practice := e.of // whose patient it is about will want to know first
	if practice == "" {
		practice = e.practice
	}
	return flag{
		kind: k, cause: causeOf(e.epoch, e.index), epoch: e.epoch, index: e.index, event: e.id, nonce: e.nonce, issuer: e.issuer,
		subject: e.subject, practice: practice, patient: e.patient,
	}
}

// Altered writes down that an entry is not the one that was sealed, as whoever
// reads the trail later than the watch found it.
func (m *Minted) Altered(ctx context.Context, s *trail.Sealed) error {
	e := seenOf(s)
	return m.record(ctx, []flag{alteredFlag(&e)}, nil)
}

// alteredFlag is a cause of its own: the entry may be flagged for its context
// too, before or after.
func alteredFlag(e *seen) flag {
	f := flagOf(e, kindAltered)
	f.cause, f.nonce = "altered/"+f.cause, ""
	return f
}

// longest text that a flag repeats of what it is about.
const longest = 255

func short(s string) string {
	if len(s) > longest {
		return strings.ToValidUTF8(s[:longest], "")
	}
	return s
}

// write writes down what the feed noticed, and how much was lost.
func (m *Minted) write(ctx context.Context) error {
	m.mu.Lock()
	noticed, life, lost := slices.Clone(m.noticed), m.life, m.lost
	m.mu.Unlock()
	if len(noticed) == 0 {
		return nil
	}
	err := m.record(ctx, noticed, func(ctx context.Context, db pgdb.DBTX) error {
		return m.cfg.DB.Q.WatchLost(ctx, db, pgdb.WatchLostParams{Life: life, Lost: int64(lost)}) //nolint:gosec // a count
	})
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.noticed = append([]flag(nil), m.noticed[len(noticed):]...)
	return nil
}

// record writes flags down, with what goes with them, in one transaction, and
// raises the alarm for those that are new.
func (m *Minted) record(ctx context.Context, flags []flag, also func(context.Context, pgdb.DBTX) error) error {
	if len(flags) == 0 && also == nil {
		return nil
	}
	var fresh int64
	err := pgx.BeginFunc(ctx, m.cfg.DB.Pool(), func(tx pgx.Tx) (err error) {
		if len(flags) > 0 {
			if fresh, err = m.cfg.DB.Q.Flag(ctx, tx, m.params(flags)); err != nil {
				return err
			}
		}
		if also != nil {
			return also(ctx, tx)
		}
		return nil
	})
	if err != nil {
		return postgres.Unavailable(err)
	}
	if fresh > 0 {
		m.alarm(ctx, flags)
	}
	return nil
}

func (m *Minted) params(flags []flag) pgdb.FlagParams {
	var p pgdb.FlagParams
	for _, f := range flags {
		p.Ids, p.Kinds, p.Causes = append(p.Ids, m.id()), append(p.Kinds, string(f.kind)), append(p.Causes, f.cause)
		p.Epochs, p.Leaves = append(p.Epochs, f.epoch), append(p.Leaves, f.index)
		p.Events, p.Nonces = append(p.Events, f.event), append(p.Nonces, short(f.nonce))
		p.Issuers, p.Subjects = append(p.Issuers, short(f.issuer)), append(p.Subjects, short(f.subject))
		p.Practices, p.Patients = append(p.Practices, short(f.practice)), append(p.Patients, short(f.patient))
		p.Numbers = append(p.Numbers, f.number)
	}
	return p
}

// alarm tells the log, once for each kind: a flood is one line. It names
// entries and no words of theirs, which may be anybody's.
func (m *Minted) alarm(ctx context.Context, flags []flag) {
	first, count := map[kind]flag{}, map[kind]int{}
	for _, f := range flags {
		if count[f.kind]++; count[f.kind] == 1 {
			first[f.kind] = f
		}
	}
	m.mu.Lock()
	for k, n := range count {
		m.flagged[k] += uint64(n) //nolint:gosec // a count
	}
	m.mu.Unlock()
	for k, n := range count {
		f := first[k]
		m.cfg.Log.ErrorContext(ctx, "ALERT flagged in the trail", slog.String("kind", string(k)), slog.String("meaning", meaning[k]), slog.Int("flags", n), slog.String("first_event", f.event),
			slog.Int("epoch", int(f.epoch)), slog.Int64("leaf_index", f.index), slog.Int64("number", f.number))
	}
}
