// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * The gate: drop what would make this node be an address it has no lease for.
 *
 * Two programs look at each frame of a group's interface (gate_ingress, gate_egress, attached by
 * clsact). A frame that belongs to no group goes on to other people's filters (TC_ACT_UNSPEC: our
 * filter stands first and takes no decision for them). A frame that belongs to a slot needs both
 *   - boot time before the slot's deadline (`lease`, written by the process through a mapping), and
 *   - the program `permit` in the slot's cell of `permits`, a PROG_ARRAY. Only the process holds
 *     that map, so the kernel empties it when the process dies, however it dies.
 * The table of what is looked at in which direction is in gate_contract.py.
 *
 * A frame can belong to up to three slots (its MAC, its address, its neighbour discovery target);
 * all must be open. The first is entered by a tail call; the others wait in cb[], which `permit`
 * works off.
 *
 * Looked through: up to two VLAN tags (an address is the site's, whatever VLAN it is seen in) and
 * up to EXTENSIONS_MAX IPv6 extension headers. Not looked into: neighbour discovery in fragments
 * (Linux ignores it, RFC 6980), interfaces without Ethernet header, tunnels (the inner packet is
 * judged where it comes out), RARP.
 *
 * Only UAPI headers and bpf_helpers.h; the loader (object.py) creates the maps, so the definitions
 * here carry only what the compiler needs. No global data, no calls: the only relocations are maps.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define SLOTS 255
#define TRANSIT_GROUPS_MAX 8
#define EXTENSIONS_MAX 6
#define VLAN_TAGS_MAX 2

#define ARP_REQUEST 1
#define PROTOCOL_CARP 112
#define CARP_VERSION_TYPE 0x21 /* version 2, type 1 */
#define CARP_AUTH_LENGTH 7     /* tells CARP from VRRP, which has the same protocol number */
#define ICMP6_NEIGHBOUR_SOLICITATION 135
#define ICMP6_NEIGHBOUR_ADVERTISEMENT 136

enum direction { INGRESS, EGRESS };

struct lease {
	__u64 serve_until; /* CLOCK_BOOTTIME ns; 0 is shut */
	__u64 advertise_until;
};

struct key_v6 {
	__u8 address[16];
	__u32 ifindex; /* of link-local addresses; 0 for all others */
};

struct key_mac {
	__u32 ifindex;
	__u8 mac[ETH_ALEN];
	__u8 zero[2];
};

struct key_vhid {
	__u32 ifindex;
	__u32 vhid;
};

struct transit_groups {
	__u32 count;
	__u32 slot[TRANSIT_GROUPS_MAX];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32);
	__type(value, __u32);
} addresses_v4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct key_v6);
	__type(value, __u32);
} addresses_v6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct key_mac);
	__type(value, __u32);
} macs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct key_vhid);
	__type(value, __u32);
} vhids SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32);
	__type(value, struct transit_groups);
} transit SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct lease);
} leases SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
} drops SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__type(key, __u32);
	__type(value, __u32);
} permits SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__type(key, __u32);
	__type(value, __u64);
} holder SEC(".maps");

struct arp_ipv4 {
	__be16 hardware_type;
	__be16 protocol_type;
	__u8 hardware_length;
	__u8 protocol_length;
	__be16 operation;
	__u8 sender_mac[ETH_ALEN];
	__u8 sender[4];
	__u8 target_mac[ETH_ALEN];
	__u8 target[4];
} __attribute__((packed));

struct vlan_tag {
	__be16 control;
	__be16 ethertype;
};

/*
 * What the programs leave for each other in cb[]: the slot being judged, and the slots that are still
 * to be judged, each as slot + 1; 0 is none.
 */
#define CB_NEXT 0
#define CB_LAST 1
#define CB_SLOT 2

/* The slots one frame belongs to, each as slot + 1; 0 is none. */
struct verdict {
	__u32 mac;
	__u32 address;
	__u32 target;
};

static __always_inline int drop(__u32 slot)
{
	__u64 *count = bpf_map_lookup_elem(&drops, &slot);

	if (count)
		__sync_fetch_and_add(count, 1);
	return TC_ACT_SHOT;
}

/* Go on in `permit` if the slot's lease runs and its cell is filled, else drop. */
static __always_inline int enter(struct __sk_buff *skb, __u32 slot)
{
	struct lease *lease = bpf_map_lookup_elem(&leases, &slot);

	skb->cb[CB_SLOT] = slot;
	if (lease && bpf_ktime_get_boot_ns() < *(volatile __u64 *)&lease->serve_until)
		bpf_tail_call(skb, &permits, slot);
	return drop(slot);
}

static __always_inline int enter_advertising(struct __sk_buff *skb, __u32 slot)
{
	struct lease *lease = bpf_map_lookup_elem(&leases, &slot);

	skb->cb[CB_NEXT] = 0;
	skb->cb[CB_LAST] = 0;
	skb->cb[CB_SLOT] = slot;
	if (lease && bpf_ktime_get_boot_ns() < *(volatile __u64 *)&lease->advertise_until)
		bpf_tail_call(skb, &permits, slot);
	return drop(slot);
}

/* Forwarded packets of a firewall pass while any firewall group of the interface is open. */
static __always_inline int enter_transit(struct __sk_buff *skb)
{
	__u32 ifindex = skb->ifindex;
	struct transit_groups *groups = bpf_map_lookup_elem(&transit, &ifindex);
	__u64 now;

	if (!groups || groups->count == 0)
		return TC_ACT_UNSPEC;
	skb->cb[CB_NEXT] = 0;
	skb->cb[CB_LAST] = 0;
	now = bpf_ktime_get_boot_ns();
#pragma unroll
	for (int i = 0; i < TRANSIT_GROUPS_MAX; i++) {
		__u32 slot = groups->slot[i];
		struct lease *lease;

		if (i >= groups->count)
			break;
		lease = bpf_map_lookup_elem(&leases, &slot);
		skb->cb[CB_SLOT] = slot;
		if (lease && now < *(volatile __u64 *)&lease->serve_until)
			bpf_tail_call(skb, &permits, slot);
	}
	return drop(groups->slot[0]);
}

static __always_inline __u32 slot_v4(const __u8 *address)
{
	__u32 key;
	__u32 *slot;

	__builtin_memcpy(&key, address, sizeof(key));
	slot = bpf_map_lookup_elem(&addresses_v4, &key);
	return slot ? *slot + 1 : 0;
}

static __always_inline __u32 slot_v6(struct __sk_buff *skb, const __u8 *address)
{
	struct key_v6 key;
	__u32 *slot;

	__builtin_memcpy(key.address, address, sizeof(key.address));
	key.ifindex = address[0] == 0xfe && (address[1] & 0xc0) == 0x80 ? skb->ifindex : 0;
	slot = bpf_map_lookup_elem(&addresses_v6, &key);
	return slot ? *slot + 1 : 0;
}

static __always_inline __u32 slot_mac(struct __sk_buff *skb, const __u8 *mac)
{
	struct key_mac key = {.ifindex = skb->ifindex};
	__u32 *slot;

	__builtin_memcpy(key.mac, mac, sizeof(key.mac));
	slot = bpf_map_lookup_elem(&macs, &key);
	return slot ? *slot + 1 : 0;
}

/* The slot whose own CARP advertisement begins at `offset`; VRRP and foreign vhids have none. */
static __always_inline __u32 slot_advertisement(struct __sk_buff *skb, __u32 offset)
{
	__u8 carp[4];
	struct key_vhid key = {.ifindex = skb->ifindex};
	__u32 *slot;

	if (bpf_skb_load_bytes(skb, offset, carp, sizeof(carp)) < 0)
		return 0;
	if (carp[0] != CARP_VERSION_TYPE || carp[3] != CARP_AUTH_LENGTH)
		return 0;
	key.vhid = carp[1];
	slot = bpf_map_lookup_elem(&vhids, &key);
	return slot ? *slot + 1 : 0;
}

static __always_inline void judge_arp(struct __sk_buff *skb, __u32 offset,
				      enum direction direction, struct verdict *verdict)
{
	struct arp_ipv4 arp;

	if (bpf_skb_load_bytes(skb, offset, &arp, sizeof(arp)) < 0)
		return;
	if (arp.protocol_type != bpf_htons(ETH_P_IP) || arp.hardware_length != ETH_ALEN ||
	    arp.protocol_length != sizeof(arp.target))
		return;
	if (direction == EGRESS)
		verdict->address = slot_v4(arp.sender);
	else if (arp.operation == bpf_htons(ARP_REQUEST) &&
		 __builtin_memcmp(arp.sender, arp.target, sizeof(arp.target)))
		verdict->address = slot_v4(arp.target);
}

/* Return the slot whose advertisement this is; otherwise fill in the verdict and return 0. */
static __always_inline __u32 judge_v4(struct __sk_buff *skb, __u32 offset,
				      enum direction direction, struct verdict *verdict)
{
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, offset, &ip, sizeof(ip)) < 0)
		return 0;
	if (direction == EGRESS && ip.protocol == PROTOCOL_CARP) {
		__u32 slot = slot_advertisement(skb, offset + ip.ihl * 4);

		if (slot)
			return slot;
	}
	verdict->address = slot_v4((const __u8 *)(direction == EGRESS ? &ip.saddr : &ip.daddr));
	return 0;
}

/* Return the offset of the payload and its protocol in *next, past the extension headers. */
static __always_inline __u32 skip_extensions(struct __sk_buff *skb, __u32 offset, __u8 *next)
{
	for (int i = 0; i < EXTENSIONS_MAX; i++) {
		__u8 head[2];

		if (*next != IPPROTO_HOPOPTS && *next != IPPROTO_ROUTING &&
		    *next != IPPROTO_DSTOPTS && *next != IPPROTO_AH)
			break;
		if (bpf_skb_load_bytes(skb, offset, head, sizeof(head)) < 0)
			break;
		offset += *next == IPPROTO_AH ? (head[1] + 2) * 4 : (head[1] + 1) * 8;
		*next = head[0];
	}
	return offset;
}

static __always_inline __u32 judge_v6(struct __sk_buff *skb, __u32 offset,
				      enum direction direction, struct verdict *verdict)
{
	struct ipv6hdr ip;
	__u8 next;

	if (bpf_skb_load_bytes(skb, offset, &ip, sizeof(ip)) < 0)
		return 0;
	next = ip.nexthdr;
	offset = skip_extensions(skb, offset + sizeof(ip), &next);
	if (direction == EGRESS && next == PROTOCOL_CARP) {
		__u32 slot = slot_advertisement(skb, offset);

		if (slot)
			return slot;
	}
	if (next == IPPROTO_ICMPV6) {
		__u8 wanted = direction == EGRESS ? ICMP6_NEIGHBOUR_ADVERTISEMENT
						  : ICMP6_NEIGHBOUR_SOLICITATION;
		__u8 neighbour[24]; /* type, code, checksum, flags, target */

		if (bpf_skb_load_bytes(skb, offset, neighbour, sizeof(neighbour)) == 0 &&
		    neighbour[0] == wanted)
			verdict->target = slot_v6(skb, neighbour + 8);
	}
	verdict->address =
		slot_v6(skb, (const __u8 *)(direction == EGRESS ? &ip.saddr : &ip.daddr));
	return 0;
}

/* Enter the first slot; the others wait in cb[] for `permit`. */
static __always_inline int enter_all(struct __sk_buff *skb, struct verdict *verdict)
{
	__u32 first = verdict->mac, second = verdict->address, third = verdict->target;

	if (!first) {
		first = second;
		second = third;
		third = 0;
	}
	if (!first) {
		first = second;
		second = 0;
	}
	if (!second) {
		second = third;
		third = 0;
	}
	if (!first)
		return TC_ACT_UNSPEC;
	skb->cb[CB_NEXT] = second;
	skb->cb[CB_LAST] = third;
	return enter(skb, first - 1);
}

static __always_inline int judge(struct __sk_buff *skb, enum direction direction)
{
	struct verdict verdict = {};
	struct ethhdr ethernet;
	__u32 offset = sizeof(ethernet), advertised = 0;
	__be16 ethertype;

	if (bpf_skb_load_bytes(skb, 0, &ethernet, sizeof(ethernet)) < 0)
		return TC_ACT_UNSPEC;
	ethertype = ethernet.h_proto;
#pragma unroll
	for (int i = 0; i < VLAN_TAGS_MAX; i++) {
		struct vlan_tag tag;

		if (ethertype != bpf_htons(ETH_P_8021Q) && ethertype != bpf_htons(ETH_P_8021AD))
			break;
		if (bpf_skb_load_bytes(skb, offset, &tag, sizeof(tag)) < 0)
			break;
		offset += sizeof(tag);
		ethertype = tag.ethertype;
	}
	if (ethertype == bpf_htons(ETH_P_ARP))
		judge_arp(skb, offset, direction, &verdict);
	else if (ethertype == bpf_htons(ETH_P_IP))
		advertised = judge_v4(skb, offset, direction, &verdict);
	else if (ethertype == bpf_htons(ETH_P_IPV6))
		advertised = judge_v6(skb, offset, direction, &verdict);
	/* An advertisement is judged as such, whatever MAC it is sent from. */
	if (advertised)
		return enter_advertising(skb, advertised - 1);
	verdict.mac = slot_mac(skb, direction == EGRESS ? ethernet.h_source : ethernet.h_dest);
	if (verdict.mac || verdict.address || verdict.target)
		return enter_all(skb, &verdict);
	if (direction == EGRESS && skb->ingress_ifindex &&
	    (ethertype == bpf_htons(ETH_P_IP) || ethertype == bpf_htons(ETH_P_IPV6)))
		return enter_transit(skb);
	return TC_ACT_UNSPEC;
}

SEC("tc/ingress") int gate_ingress(struct __sk_buff *skb)
{
	return judge(skb, INGRESS);
}

SEC("tc/egress") int gate_egress(struct __sk_buff *skb)
{
	return judge(skb, EGRESS);
}

/* Let through, unless the frame belongs to a further slot. */
static __always_inline int go_on(struct __sk_buff *skb)
{
	__u32 next = skb->cb[CB_NEXT];

	if (!next)
		return TC_ACT_UNSPEC;
	skb->cb[CB_NEXT] = skb->cb[CB_LAST];
	skb->cb[CB_LAST] = 0;
	return enter(skb, next - 1);
}

SEC("tc/permit") int permit(struct __sk_buff *skb)
{
	return go_on(skb);
}

/*
 * The same, and only while the holder's socket lives. The kernel empties a PROG_ARRAY by deferred
 * work, which comes late on a busy machine; a socket leaves a sockmap at once when it is closed.
 */
SEC("tc/permit_held") int permit_held(struct __sk_buff *skb)
{
	__u32 first = 0;
	struct bpf_sock *socket = bpf_map_lookup_elem(&holder, &first);

	if (!socket)
		return drop(skb->cb[CB_SLOT]);
	bpf_sk_release(socket);
	return go_on(skb);
}

char gate_license[] SEC("license") = "Dual BSD/GPL";
