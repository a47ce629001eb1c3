// SPDX-License-Identifier: Apache-2.0

package med

import "time"

// Checkpoint is a signed head of the audit trail's log (C2SP tlog-checkpoint).
type Checkpoint struct {
	Event  EventID // the entry of this reading
	Epoch  int
	Origin string
	Size   int64 // entries under it
	Note   string
	// CosignedAt is when the witnesses' quorum was in; zero before.
	SignedAt, CosignedAt time.Time
}

// EntryProof shows that an entry is in the log.
type EntryProof struct {
	Event EventID // the entry of this reading
	Entry EventID // the one that is proved
	Index int64
	Head  Checkpoint
	Text  string // C2SP tlog-proof
}

// WholeProof shows that a list of entries about a patient leaves none out.
type WholeProof struct {
	Event    EventID // the entry of this reading
	Patient  PatientID
	Head     Checkpoint
	Entries  []EntryHash // all of them, in the order of the log
	Siblings [][]byte    // of the patient's leaf in the patient map, upwards
	// Other is the patient leaf that stands in the place of one without entries.
	Other *MapLeaf
}

// EntryHash is an entry by its leaf hash.
type EntryHash struct {
	Entry EventID
	Hash  []byte
}

// MapLeaf is a leaf of the patient map.
type MapLeaf struct {
	Key, Head []byte
	Count     int64
}
