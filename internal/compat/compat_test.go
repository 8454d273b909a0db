package compat

import "testing"

// TestClients runs everything through one proxy, one after the other: the table is shared.
func TestClients(t *testing.T) {
	if testing.Short() {
		t.Skip("takes minutes")
	}
	w := newWorld(t)
	t.Run("drivers", func(t *testing.T) {
		for _, d := range drivers {
			t.Run(d.name, func(t *testing.T) { w.testDriver(t, d) })
		}
	})
}
