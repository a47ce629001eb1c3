// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

// Record is an entry as it is stored: every column of audit.event, so that
// whoever holds a record can hash it. A nil text is NULL.
type Record struct {
	Epoch      int32  // of the log; a new one begins after a logical restore
	TX         uint64 // transaction that wrote it: with the id, its place in the log
	ID         string // UUIDv7
	OccurredAt time.Time
	RecordedAt time.Time // by the database's clock

	Parent                                    *string
	ActorIssuer, ActorSubject                 string
	ActorPractice, Patient, PatientPractice   *string
	Action, ResourceType, ResourceID, Outcome string
	Code                                      *string
	BreakGlass                                bool
	ContextNonce, ContextMAC                  *string
	Detail                                    string // the bytes that were written, never serialised again
	Nonce                                     []byte // 16 random bytes: the leaf hash tells nothing of the rest
	Version                                   int16
}

// leafTag names the form of the canonical bytes. A new form gets a new tag;
// old entries keep theirs.
const leafTag = "mr-audit-v1"

// null stands in the place of the length of a column that is NULL.
const null = 0xffffffff

// Columns are the columns of a leaf, in the order of its bytes.
var Columns = []string{
	"version", "epoch", "tx", "event_id", "occurred_at", "recorded_at", "parent_id",
	"actor_issuer", "actor_subject", "actor_practice", "patient_id", "patient_practice",
	"action", "resource_type", "resource_id", "outcome", "code", "break_glass", "ctx_nonce", "ctx_mac", "detail", "nonce",
}

// Texts returns the record's columns as canonical texts, in the order of
// Columns: integers in decimal, times as microseconds since 1970 in UTC, the
// boolean as t or f, the nonce in hex, NULL as nil.
func (r *Record) Texts() []*string {
	text := func(s string) *string { return &s }
	number := func(n int64) *string { return text(strconv.FormatInt(n, 10)) }
	glass := "f"
	if r.BreakGlass {
		glass = "t"
	}
	return []*string{
		number(int64(r.Version)), number(int64(r.Epoch)), text(strconv.FormatUint(r.TX, 10)), &r.ID,
		number(r.OccurredAt.UnixMicro()), number(r.RecordedAt.UnixMicro()), r.Parent,
		&r.ActorIssuer, &r.ActorSubject, r.ActorPractice, r.Patient, r.PatientPractice,
		&r.Action, &r.ResourceType, &r.ResourceID, &r.Outcome, r.Code, &glass, r.ContextNonce, r.ContextMAC, &r.Detail,
		text(hex.EncodeToString(r.Nonce)),
	}
}

// Leaf returns the canonical bytes of the record: the tag and then each column
// of Texts, every one after its length in 4 bytes, big-endian; NULL is the
// length 0xffffffff and no bytes.
func (r *Record) Leaf() []byte { return r.AppendLeaf(nil) }

// AppendLeaf appends the canonical bytes to b. It is Leaf without Texts'
// allocations: sealing and verifying spend their time here.
func (r *Record) AppendLeaf(b []byte) []byte {
	b = appendColumn(b, leafTag)
	b = appendInt(b, int64(r.Version))
	b = appendInt(b, int64(r.Epoch))
	b = appendNumber(b, func(b []byte) []byte { return strconv.AppendUint(b, r.TX, 10) })
	b = appendColumn(b, r.ID)
	b = appendInt(b, r.OccurredAt.UnixMicro())
	b = appendInt(b, r.RecordedAt.UnixMicro())
	b = appendNullable(b, r.Parent)
	b = appendColumn(b, r.ActorIssuer)
	b = appendColumn(b, r.ActorSubject)
	b = appendNullable(b, r.ActorPractice)
	b = appendNullable(b, r.Patient)
	b = appendNullable(b, r.PatientPractice)
	b = appendColumn(b, r.Action)
	b = appendColumn(b, r.ResourceType)
	b = appendColumn(b, r.ResourceID)
	b = appendColumn(b, r.Outcome)
	b = appendNullable(b, r.Code)
	if r.BreakGlass {
		b = appendColumn(b, "t")
	} else {
		b = appendColumn(b, "f")
	}
	b = appendNullable(b, r.ContextNonce)
	b = appendNullable(b, r.ContextMAC)
	b = appendColumn(b, r.Detail)
	return appendNumber(b, func(b []byte) []byte { return hex.AppendEncode(b, r.Nonce) })
}

// Hash returns the record's leaf hash: SHA-256(0x00, Leaf), RFC 6962, 2.1.
func (r *Record) Hash() tlog.Hash { return tlog.RecordHash(r.Leaf()) }

func appendColumn(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(s))) //nolint:gosec // a column has far fewer bytes than 4 GiB
	return append(b, s...)
}

func appendNullable(b []byte, s *string) []byte {
	if s == nil {
		return binary.BigEndian.AppendUint32(b, null)
	}
	return appendColumn(b, *s)
}

func appendInt(b []byte, n int64) []byte {
	return appendNumber(b, func(b []byte) []byte { return strconv.AppendInt(b, n, 10) })
}

// appendNumber appends a column that is written in place, after its length.
func appendNumber(b []byte, write func([]byte) []byte) []byte {
	at := len(b)
	b = write(append(b, 0, 0, 0, 0))
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at-4)) //nolint:gosec // a few digits
	return b
}

// RecordOf reads a record from its canonical texts, by column. It reports an
// error that names the column, and not its value, for one that is missing,
// unknown, or not as Texts writes it.
func RecordOf(texts map[string]*string) (*Record, error) {
	if len(texts) != len(Columns) {
		return nil, fmt.Errorf("a record has %d columns, not %d", len(Columns), len(texts))
	}
	p := parser{texts: texts}
	r := &Record{
		Version: int16(p.number("version", 16)), Epoch: int32(p.number("epoch", 32)), ID: p.text("event_id"), //nolint:gosec // bounded by number
		OccurredAt: time.UnixMicro(p.number("occurred_at", 64)).UTC(), RecordedAt: time.UnixMicro(p.number("recorded_at", 64)).UTC(),
		Parent: texts["parent_id"], ActorIssuer: p.text("actor_issuer"), ActorSubject: p.text("actor_subject"), ActorPractice: texts["actor_practice"],
		Patient: texts["patient_id"], PatientPractice: texts["patient_practice"], Action: p.text("action"), ResourceType: p.text("resource_type"),
		ResourceID: p.text("resource_id"), Outcome: p.text("outcome"), Code: texts["code"], BreakGlass: p.text("break_glass") == "t",
		ContextNonce: texts["ctx_nonce"], ContextMAC: texts["ctx_mac"], Detail: p.text("detail"),
	}
	var err error
	if r.TX, err = strconv.ParseUint(p.text("tx"), 10, 64); err != nil {
		p.fail("tx")
	}
	if r.Nonce, err = hex.DecodeString(p.text("nonce")); err != nil {
		p.fail("nonce")
	}
	for i, text := range r.Texts() {
		if was := texts[Columns[i]]; (text == nil) != (was == nil) || text != nil && *text != *was {
			p.fail(Columns[i])
		}
	}
	return r, p.err
}

type parser struct {
	texts map[string]*string
	err   error
}

func (p *parser) fail(column string) {
	if p.err == nil {
		p.err = fmt.Errorf("column %s is missing or not in its canonical form", column)
	}
}

func (p *parser) text(column string) string {
	if s := p.texts[column]; s != nil {
		return *s
	}
	p.fail(column)
	return ""
}

func (p *parser) number(column string, bits int) int64 {
	n, err := strconv.ParseInt(p.text(column), 10, bits)
	if err != nil {
		p.fail(column)
	}
	return n
}

// recordOf reads a record from its texts in the order of Columns, or returns
// nil when one is not as Texts writes it.
func recordOf(t *[22]*string) *Record {
	for i, text := range t {
		if text == nil && !nullable[i] {
			return nil
		}
	}
	version, e1 := strconv.ParseInt(*t[0], 10, 16)
	epoch, e2 := strconv.ParseInt(*t[1], 10, 32)
	tx, e3 := strconv.ParseUint(*t[2], 10, 64)
	occurred, e4 := strconv.ParseInt(*t[4], 10, 64)
	recorded, e5 := strconv.ParseInt(*t[5], 10, 64)
	nonce, e6 := hex.DecodeString(*t[21])
	for _, err := range []error{e1, e2, e3, e4, e5, e6} {
		if err != nil {
			return nil
		}
	}
	r := &Record{
		Version: int16(version), Epoch: int32(epoch), TX: tx, ID: *t[3], OccurredAt: time.UnixMicro(occurred).UTC(), RecordedAt: time.UnixMicro(recorded).UTC(), //nolint:gosec // parsed as such
		Parent: t[6], ActorIssuer: *t[7], ActorSubject: *t[8], ActorPractice: t[9], Patient: t[10], PatientPractice: t[11],
		Action: *t[12], ResourceType: *t[13], ResourceID: *t[14], Outcome: *t[15], Code: t[16], BreakGlass: *t[17] == "t",
		ContextNonce: t[18], ContextMAC: t[19], Detail: *t[20], Nonce: nonce,
	}
	var digits [20]byte
	is := func(b []byte, s string) bool { return string(b) == s }
	if !is(strconv.AppendInt(digits[:0], version, 10), *t[0]) || !is(strconv.AppendInt(digits[:0], epoch, 10), *t[1]) ||
		!is(strconv.AppendUint(digits[:0], tx, 10), *t[2]) || !is(strconv.AppendInt(digits[:0], occurred, 10), *t[4]) ||
		!is(strconv.AppendInt(digits[:0], recorded, 10), *t[5]) || *t[17] != "t" && *t[17] != "f" || hex.EncodeToString(nonce) != *t[21] {
		return nil
	}
	return r
}

// nullable says which of the Columns may be NULL.
var nullable = [22]bool{6: true, 9: true, 10: true, 11: true, 16: true, 18: true, 19: true}
