// SPDX-License-Identifier: Apache-2.0

//go:build goexperiment.runtimesecret

package envelope

import "runtime/secret"

// discreet runs f and erases the stack and the registers it leaves behind, and
// the heap it used once that is unreachable. It covers this goroutine only.
func discreet(f func()) { secret.Do(f) }
