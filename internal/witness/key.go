// SPDX-License-Identifier: Apache-2.0

package witness

import (
	"errors"
	"fmt"
	"strings"

	cosignature "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"

	"github.com/medirecord/medirecord/internal/cosign"
)

// signer is a signing key with its verifier key.
type signer struct {
	*cosignature.Signer
	vkey string
}

// readKeys reads signing keys, one a line.
func readKeys(text []byte) (out []signer, err error) {
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		s, err := readKey(line)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	if len(out) == 0 {
		return nil, errors.New("the witness's key file holds no key; --new-key NAME makes a new witness")
	}
	return out, nil
}

// readKey reads a signing key: an Ed25519 key as golang.org/x/mod/sumdb/note
// writes it. The witness signs with it as a cosigner, under the cosigner's key id.
func readKey(skey string) (signer, error) {
	bad := errors.New("a line of the witness's key file is not a key: want PRIVATE+KEY+<name>+<id>+<base64> of an Ed25519 key")
	if _, err := note.NewSigner(skey); err != nil { // checks the id, which the cosigner's reader does not
		return signer{}, bad
	}
	s, err := cosignature.NewSignerForCosignatureV1(skey)
	if err != nil {
		return signer{}, bad
	}
	vkey, err := cosign.VerifierKey(skey)
	if err != nil {
		return signer{}, bad
	}
	vkey, err = cosignature.VKeyToCosignatureV1(vkey)
	return signer{s, vkey}, err
}

// newKey makes a signing key.
func newKey(name string) (skey string, err error) {
	if skey, _, err = note.GenerateKey(nil, name); err != nil {
		return "", err
	}
	if _, err := readKey(skey); err != nil { // it takes any name, its reader does not
		return "", fmt.Errorf("a witness cannot be called %q: take a name like witness.example/w1, without spaces and plus signs", name)
	}
	return skey, nil
}
