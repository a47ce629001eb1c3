// SPDX-License-Identifier: Apache-2.0

package envelope

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/fips140"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Everything this package does must work where only FIPS 140 approved
// cryptography is allowed. That mode is chosen when a process starts, so the
// test runs its own binary again.
func TestFIPSOnlyMode(t *testing.T) {
	t.Parallel()
	if os.Getenv("ENVELOPE_FIPS_CHILD") != "" {
		t.Skip("this is the child")
	}
	//nolint:gosec // our own binary
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.v", "-test.run",
		"^(TestFIPSChild|TestSealAndOpen|TestRow|TestUpdateRow|TestKeyHierarchy|TestReasons|TestBlindIndex|TestDigest|TestVectors)$")
	child.Env = append(os.Environ(), "GODEBUG=fips140=only", "ENVELOPE_FIPS_CHILD=1")
	out, err := child.CombinedOutput()
	if err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	for _, ran := range []string{"--- PASS: TestFIPSChild", "--- PASS: TestKeyHierarchy", "--- PASS: TestVectors"} {
		if !strings.Contains(string(out), ran) {
			t.Errorf("the child did not say %q:\n%s", ran, out)
		}
	}
}

// TestFIPSChild shows that the mode is on: what it forbids, fails.
func TestFIPSChild(t *testing.T) {
	t.Parallel()
	if os.Getenv("ENVELOPE_FIPS_CHILD") == "" {
		t.Skip("runs in the child of TestFIPSOnlyMode")
	}
	if !fips140.Enabled() {
		t.Error("FIPS 140 mode is off")
	}
	block, err := aes.NewCipher(fixedKey(1).cell.b[:])
	must(t, err)
	if _, err := cipher.NewGCM(block); err == nil {
		t.Error("GCM with nonces of one's own is allowed, so this is not FIPS-only mode")
	}
}
