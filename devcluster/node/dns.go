package main

import (
	"context"
	"os"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	"github.com/coredns/coredns/plugin"
	"github.com/miekg/dns"

	// The plugins that a cluster DNS needs, and no more: each is in the
	// binary only because it is imported here.
	_ "github.com/coredns/caddy/onevent"
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/log"
	_ "github.com/coredns/coredns/plugin/loop"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/reload"
)

// nxdomain answers that there is no such name, for all that no zone knows: to
// be refused, as CoreDNS does by itself, makes clients try again.
type nxdomain struct{}

func (nxdomain) Name() string { return "nxdomain" }

func (nxdomain) ServeDNS(_ context.Context, w dns.ResponseWriter, request *dns.Msg) (int, error) {
	answer := new(dns.Msg)
	answer.SetRcode(request, dns.RcodeNameError)
	return dns.RcodeNameError, w.WriteMsg(answer)
}

func setupNxdomain(c *caddy.Controller) error {
	dnsserver.GetConfig(c).AddPlugin(func(plugin.Handler) plugin.Handler { return nxdomain{} })
	return nil
}

func init() {
	plugin.Register("nxdomain", setupNxdomain)
	// The order of directives is the order of the plugins in a query.
	dnsserver.Directives = []string{
		"bind", "reload", "health", "ready", "errors", "log", "cache", "kubernetes", "loop", "on", "nxdomain",
	}
	programs["coredns"] = func() int {
		os.Args[0] = "coredns"
		coremain.Run()
		return 0
	}
}
