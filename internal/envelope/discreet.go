// SPDX-License-Identifier: Apache-2.0

//go:build !goexperiment.runtimesecret

package envelope

// discreet runs f. Built with GOEXPERIMENT=runtimesecret, it also erases the
// stack and the registers f leaves behind.
func discreet(f func()) { f() }
