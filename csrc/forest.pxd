"""Components that still grow: their runs in linked lists, joined by union-find.

Header only. A node is a component, or was one before it became part of another.
"""

from libc.stdint cimport int32_t, int64_t
from libc.string cimport memset

from runs cimport Component, Run
from vector cimport Ints, Vector, free_ints, free_vector, reserve


cdef struct Link:
    # A run in the list of its component.
    int32_t y
    int32_t x0
    int32_t x1
    int32_t next  # index of the next run, or -1


cdef struct Node:
    int32_t parent  # itself: a root
    int32_t head  # index of its first run, or -1
    int32_t tail  # of its last
    int32_t y0  # bounding box, half-open
    int32_t x0
    int32_t y1
    int32_t x1
    int32_t runs
    int32_t contacts  # between its runs
    int32_t cut  # it has lost pixels: its contacts no longer count its holes
    int32_t marked  # some part of it was, see ``RunLabeler.mark``
    int32_t first  # its first row, also where it has lost that
    int32_t forward  # new number while the table is being packed


cdef struct Forest:
    # Valid when zeroed.
    Vector links
    Vector nodes
    Ints live  # those that may still grow, by age; some are no roots any more
    int64_t garbage  # links that belong to no component any more


cdef inline void free_forest(Forest* forest) noexcept nogil:
    free_vector(&forest.links)
    free_vector(&forest.nodes)
    free_ints(&forest.live)


cdef inline int32_t find(Node* nodes, int32_t node) noexcept nogil:
    cdef int32_t parent = nodes[node].parent
    while parent != node:
        nodes[node].parent = nodes[parent].parent  # path halving
        node = parent
        parent = nodes[node].parent
    return node


cdef inline int32_t unite(Node* nodes, Link* links, int32_t a, int32_t b) noexcept nogil:
    """Join two roots; the older one (smaller number) stays."""
    cdef Node* into
    cdef Node* other
    if a > b:
        a, b = b, a
    into = nodes + a
    other = nodes + b
    other.parent = a
    if other.head >= 0:
        if into.head < 0:
            into.head = other.head
        else:
            links[into.tail].next = other.head
        into.tail = other.tail
    into.y0 = min(into.y0, other.y0)
    into.x0 = min(into.x0, other.x0)
    into.y1 = max(into.y1, other.y1)
    into.x1 = max(into.x1, other.x1)
    into.runs += other.runs
    into.contacts += other.contacts
    into.cut |= other.cut
    into.marked |= other.marked
    into.first = min(into.first, other.first)
    return a


cdef inline void begin_node(Node* node, int32_t number, int32_t y, int32_t x0, int32_t x1) noexcept nogil:
    """A new component whose first run is to be appended."""
    node.parent = number
    node.head = -1
    node.y0 = y
    node.x0 = x0
    node.x1 = x1
    node.runs = 0
    node.contacts = 0
    node.cut = 0
    node.marked = 0
    node.first = y


cdef inline void append(Node* node, Link* links, int32_t link) noexcept nogil:
    """Add a run, as the last of the list, to a root and to its bounding box."""
    if node.head < 0:
        node.head = link
    else:
        links[node.tail].next = link
    node.tail = link
    node.y0 = min(node.y0, links[link].y)
    node.x0 = min(node.x0, links[link].x0)
    node.x1 = max(node.x1, links[link].x1)
    node.runs += 1


cdef inline int64_t write_component(
    const Node* node, const Link* links, Component* component, Run* runs, int64_t at
) noexcept nogil:
    """Write a component and its runs from position ``at``; return the position behind them."""
    cdef int32_t link = node.head
    component.run_begin = <int32_t>at
    while link >= 0:
        runs[at].y = links[link].y
        runs[at].x0 = links[link].x0
        runs[at].x1 = links[link].x1
        link = links[link].next
        at += 1
    component.run_end = <int32_t>at
    component.y0 = node.y0
    component.x0 = node.x0
    component.y1 = node.y1
    component.x1 = node.x1
    component.holes = -1 if node.cut else node.contacts - node.runs + 1
    component.marked = node.marked
    return at


cdef inline void keep_first(Forest* forest, int32_t kept) noexcept nogil:
    """Forget all nodes but the first of ``live``, which move to the front of the table in this order."""
    cdef Node* nodes = <Node*>forest.nodes.data
    cdef int32_t* live = forest.live.data
    cdef int32_t i
    for i in range(kept):
        if live[i] != i:
            nodes[i] = nodes[live[i]]
        nodes[i].parent = i
        live[i] = i
    forest.live.size = forest.nodes.size = kept


cdef inline int collect(Forest* forest) except -1 nogil:
    """Move the links in use to a fresh array."""
    cdef Vector fresh
    cdef Node* node
    cdef const Link* links = <const Link*>forest.links.data
    cdef Link* moved
    cdef int32_t link
    cdef int64_t i
    memset(&fresh, 0, sizeof(Vector))
    moved = <Link*>reserve(&fresh, max(forest.links.size - forest.garbage, 0), sizeof(Link), b"runs")
    for i in range(forest.live.size):
        node = <Node*>forest.nodes.data + forest.live.data[i]
        link = node.head
        if link < 0:
            continue
        node.head = <int32_t>fresh.size
        while link >= 0:
            moved[fresh.size] = links[link]
            fresh.size += 1
            moved[fresh.size - 1].next = <int32_t>fresh.size
            link = links[link].next
        node.tail = <int32_t>fresh.size - 1
        moved[node.tail].next = -1
    free_vector(&forest.links)
    forest.links = fresh
    forest.garbage = 0
    return 0
