-- Wireshark's dissector for the vchannel, of captures that `vhostcomm capture export` made and of TCP.
-- Fields have the names of protocol/README.md. How to install and use it: README.md beside this file.

local FRAME_SIZE, HEADER_SIZE = 4096, 64
local DATA_SIZE = FRAME_SIZE - HEADER_SIZE
local SUB_COMMAND_LIMIT = 255

-- number = { name, what a request carries, what a response carries }; a test compares it with vchannel.commands.
local HOST_COMMANDS = {
    [2] = { "GUEST_INFO", "unknown", "empty" },
    [3] = { "GUEST_POWER", "unknown", "empty" },
    [4] = { "HOST_VERSION", "empty", "json" },
    [5] = { "GUEST_SERIAL", "empty", "text" },
    [7] = { "GUEST_CPU", "empty", "json" },
    [8] = { "VMM_VERSION", "empty", "json" },
    [9] = { "HOST_VERSION_SECOND", "unknown", "unknown" },
    [10] = { "NETWORK_RESULT", "unknown", "json" },
    [11] = { "GUEST_UUID", "empty", "text" },
    [12] = { "CLUSTER_UUID", "empty", "text" },
    [13] = { "HOST_SERIAL", "empty", "text" },
    [14] = { "HOST_MAC", "empty", "text" },
    [15] = { "HOST_MODEL", "empty", "text" },
    [16] = { "UPDATE_DEADLINE", "empty", "integer" },
    [17] = { "GUEST_TIMESTAMP", "integer", "empty" },
}
local GUEST_COMMANDS = {
    [0] = { "TEST", "unknown", "unknown" },
    [1] = { "WEBAPI", "unknown", "unknown" },
    [2] = { "GET_IP", "unknown", "unknown" },
    [5] = { "GET_UPTIME", "unknown", "unknown" },
    [6] = { "POWEROFF", "empty", "unknown" },
    [8] = { "REBOOT", "unknown", "unknown" },
    [9] = { "RESIZE_VDISK", "unknown", "unknown" },
    [10] = { "GET_INFORMATION", "empty", "json" },
    [11] = { "GET_DSM_SETTING", "unknown", "unknown" },
    [12] = { "RESET", "unknown", "unknown" },
    [13] = { "DELETE_VDISK", "unknown", "unknown" },
    [14] = { "FS_FREEZE", "unknown", "unknown" },
    [15] = { "FS_UNFREEZE", "unknown", "unknown" },
    [16] = { "GET_FIRMWARE_VERSION", "unknown", "unknown" },
    [17] = { "SET_NETWORK", "unknown", "unknown" },
    [18] = { "GUEST_NOTIFY", "unknown", "unknown" },
    [19] = { "GET_DEFAULT_PW", "unknown", "unknown" },
}

local function names(commands)
    local found = {}
    for number, command in pairs(commands) do
        found[number] = command[1]
    end
    return found
end

local vchannel = Proto("vchannel", "Virtual DSM vchannel")
-- What an export names: one record of a capture, with a head that tells of it.
local vchannel_record = Proto("vchannel_record", "Virtual DSM vchannel, record of a capture")

vchannel.prefs.guest_listens = Pref.bool(
    "TCP: the guest's end listens", false,
    "Over TCP, the end at the port of \"Decode As\" is the host; with this option, it is the guest (QEMU)."
)

local f = {
    channel = ProtoField.string("vchannel.channel", "Channel"),
    direction = ProtoField.string("vchannel.direction", "Direction"),
    request_id = ProtoField.uint64("vchannel.request_id", "request_id", base.HEX),
    guest_uuid = ProtoField.guid("vchannel.guest_uuid", "guest_uuid"),
    guest_id = ProtoField.uint64("vchannel.guest_id", "guest_id"),
    is_request = ProtoField.int32("vchannel.is_request", "is_request"),
    is_response = ProtoField.int32("vchannel.is_response", "is_response"),
    needs_response = ProtoField.int32("vchannel.needs_response", "needs_response"),
    request_length = ProtoField.int32("vchannel.request_length", "request_length"),
    response_length = ProtoField.int32("vchannel.response_length", "response_length"),
    command = ProtoField.int32("vchannel.command", "command"),
    host_command = ProtoField.int32("vchannel.host_command", "HostCommand", base.DEC, names(HOST_COMMANDS)),
    guest_command = ProtoField.int32("vchannel.guest_command", "GuestCommand", base.DEC, names(GUEST_COMMANDS)),
    sub_command = ProtoField.int32("vchannel.sub_command", "sub_command"),
    reserved = ProtoField.int32("vchannel.reserved", "reserved"),
    data = ProtoField.bytes("vchannel.data", "data"),
    text = ProtoField.string("vchannel.text", "Text", base.UNICODE),
    padding = ProtoField.bytes("vchannel.padding", "padding"),
    response_in = ProtoField.framenum("vchannel.response_in", "Response in", base.NONE, frametype.RESPONSE),
    response_to = ProtoField.framenum("vchannel.response_to", "Response to", base.NONE, frametype.REQUEST),
    asked_before = ProtoField.framenum("vchannel.asked_before", "Asked before in", base.NONE, frametype.RETRANS_PREV),
    time = ProtoField.relative_time("vchannel.time", "Time from request to response"),
    refused = ProtoField.string("vchannel.refused", "Rejected by the host"),
    assumed = ProtoField.string("vchannel.assumed", "Fields that nobody observed"),
    skipped = ProtoField.bytes("vchannel.skipped", "Bytes outside any frame"),
    why_skipped = ProtoField.string("vchannel.why_skipped", "Why outside any frame"),
}
vchannel.fields = f


local group, severity = expert.group, expert.severity
local e = {}
local function tells(name, text, of, how)
    e[name] = ProtoExpert.new("vchannel.expert." .. name, text, of, how)
end
tells("flag", "A flag is 0 or 1", group.MALFORMED, severity.ERROR)
tells("both", "Exactly one of is_request and is_response is 1", group.MALFORMED, severity.ERROR)
tells("length", "A length is 0..4032", group.MALFORMED, severity.ERROR)
tells("cut", "Less than a frame's 4096 bytes", group.MALFORMED, severity.ERROR)
tells("skipped", "Bytes outside any frame", group.MALFORMED, severity.WARN)
tells("refused", "The host rejected this header", group.PROTOCOL, severity.WARN)
tells("sub_command", "sub_command is not 1..255", group.PROTOCOL, severity.WARN)
tells("reserved", "reserved is not 0", group.PROTOCOL, severity.WARN)
tells("command", "Unknown command", group.UNDECODED, severity.NOTE)
tells("direction", "Unknown direction, so the command's namespace is unknown too", group.UNDECODED, severity.WARN)
tells("other_length", "The length of the other direction is not 0", group.PROTOCOL, severity.NOTE)
tells("padding", "Padding is not zero: perhaps half of one frame and half of another", group.PROTOCOL, severity.NOTE)
tells("nul", "The text has no closing NUL", group.PROTOCOL, severity.NOTE)
tells("integer", "Not a decimal number", group.PROTOCOL, severity.WARN)
tells("unsolicited", "A response to no request", group.SEQUENCE, severity.WARN)
tells("unanswered", "No response to this request in the capture", group.SEQUENCE, severity.NOTE)
tells("asked_again", "Asked again: an earlier request waits for its response", group.SEQUENCE, severity.NOTE)
tells("same_id", "The request_id of a request that waits for its response", group.SEQUENCE, severity.WARN)
vchannel.experts = e

local json = Dissector.get("json")


-- Requests and responses: paired in the first pass over the capture, shown in every one. In the first there may
-- be no tree: what is needed for that can't come from fields of other dissectors.

local channels, paired
-- Of a stream: whether its last frame convinced, and whether one did before a header that only looks acceptable.
local in_step, vouched

function vchannel.init()
    channels, paired = {}, {}
    in_step, vouched = {}, {}
end

local function asker_of(channel, side)
    channels[channel] = channels[channel] or { guest = {}, host = {} }
    return channels[channel][side]
end

-- The oldest request of a queue that waits.
local function oldest(queue)
    while queue and queue[queue.first] and queue[queue.first].response do
        queue.first = queue.first + 1
    end
    return queue and queue[queue.first]
end

local function put(queues, key, request)
    queues[key] = queues[key] or { first = 1 }
    table.insert(queues[key], request)
end

local function asks(asker, frame)
    local request = { number = frame.number, at = frame.at, command = frame.command, needs = frame.needs_response == 1 }
    asker.ids = asker.ids or {}
    asker.ids[frame.id] = true
    if request.needs then
        asker.by_id, asker.by_command = asker.by_id or {}, asker.by_command or {}
        local same_id, same_command = oldest(asker.by_id[frame.id]), oldest(asker.by_command[frame.command])
        request.same_id = same_id and same_id.number
        request.before = request.same_id or same_command and asker.by_command[frame.command].last.number
        put(asker.by_id, frame.id, request)
        put(asker.by_command, frame.command, request)
        asker.by_command[frame.command].last = request
    end
    return { request = request }
end

-- Whose response it is, by the rules of protocol/README.md, 8.3.
local function answers(asker, frame)
    local request = asker.by_id and oldest(asker.by_id[frame.id])
    if request then
        asker.repeats_ids = true
        if request.command ~= frame.command then
            return { why = "its id is of a request for command " .. request.command }
        end
    elseif asker.ids and asker.ids[frame.id] then
        asker.repeats_ids = true
        return { why = "its request was answered, or wanted no response" }
    elseif asker.repeats_ids then
        return { why = "no request with its id waits, and its sender repeats ids" }
    else
        request = asker.by_command and oldest(asker.by_command[frame.command])
        if not request then
            return { why = "no request for its command waits" }
        end
    end
    request.response = { number = frame.number, at = frame.at }
    return { answered = request, response = request.response }
end

local function pair(pinfo, offset, frame, channel)
    local key = table.concat({ pinfo.number, offset, frame.is_request, frame.command, frame.id }, " ")
    if not pinfo.visited and not paired[key] then
        frame.number, frame.at = pinfo.number, pinfo.rel_ts
        local asker = asker_of(channel, frame.asked_by)
        paired[key] = frame.is_request == 1 and asks(asker, frame) or answers(asker, frame)
    end
    return paired[key]
end

local function between(from, to)
    local nanoseconds = math.floor((to - from) * 1e9 + 0.5)
    local seconds = math.floor(nanoseconds / 1e9)
    return NSTime(seconds, nanoseconds - seconds * 1e9)
end

local function show_pair(tree, pinfo, found)
    local request = found.request
    if found.answered then
        tree:add(f.response_to, found.answered.number):set_generated()
        tree:add(f.time, between(found.answered.at, found.response.at)):set_generated()
    elseif found.why then
        tree:add_proto_expert_info(e.unsolicited, "A response to no request: " .. found.why)
    elseif request.response then
        tree:add(f.response_in, request.response.number):set_generated()
        tree:add(f.time, between(request.at, request.response.at)):set_generated()
    elseif request.needs and pinfo.visited then -- only then the whole capture has been seen
        tree:add_proto_expert_info(e.unanswered)
    end
    if request and request.before then
        tree:add(f.asked_before, request.before):set_generated()
        tree:add_proto_expert_info(request.same_id and e.same_id or e.asked_again)
    end
end


-- One frame

local function read(tvb, offset)
    local function number(at)
        return tvb(offset + at, 4):le_int()
    end
    return {
        id = tvb:raw(offset, 8),
        guest_id_upper = number(28),
        is_request = number(32),
        is_response = number(36),
        needs_response = number(40),
        request_length = number(44),
        response_length = number(48),
        command = number(52),
        sub_command = number(56),
        reserved = number(60),
    }
end

local function is_flag(value)
    return value == 0 or value == 1
end

local function is_length(value)
    return value >= 0 and value <= DATA_SIZE
end

local function is_acceptable(frame)
    return is_flag(frame.is_request) and is_flag(frame.is_response) and is_flag(frame.needs_response)
        and frame.is_request ~= frame.is_response
        and is_length(frame.request_length) and is_length(frame.response_length)
end

local function is_convincing(frame)
    return is_acceptable(frame) and frame.reserved == 0
        and frame.sub_command >= 1 and frame.sub_command <= SUB_COMMAND_LIMIT
end

-- Whether it is like every header seen so far: protocol/README.md, 8.1.
local function is_usual(frame)
    local other_length = frame.is_request == 1 and frame.response_length or frame.request_length
    return is_convincing(frame) and frame.sub_command == 1 and frame.guest_id_upper == 0 and other_length == 0
end

-- How many bytes the header counts; 0 where its flags or that length make no sense. And its field's name.
local function counted(frame)
    local name = frame.is_request == 1 and "request_length" or "response_length"
    if frame.is_request + frame.is_response ~= 1 or not is_flag(frame.is_request) or not is_length(frame[name]) then
        return 0, name
    end
    return frame[name], name
end

local function show_header(tree, tvb, offset, frame)
    local items = {}
    local function add(name, at, size)
        items[name] = tree:add_le(f[name], tvb(offset + at, size))
    end
    add("request_id", 0, 8)
    tree:add(f.guest_uuid, tvb(offset + 8, 16))
    add("guest_id", 24, 8)
    local at = 32
    for _, name in ipairs({
        "is_request", "is_response", "needs_response", "request_length", "response_length", "command", "sub_command",
        "reserved",
    }) do
        add(name, at, 4)
        at = at + 4
    end
    for _, name in ipairs({ "is_request", "is_response", "needs_response" }) do
        if not is_flag(frame[name]) then
            items[name]:add_proto_expert_info(e.flag, name .. " is " .. frame[name] .. ": a flag is 0 or 1")
        end
    end
    if is_flag(frame.is_request) and frame.is_request == frame.is_response then
        local which = frame.is_request == 1 and "both are 1" or "both are 0"
        items.is_response:add_proto_expert_info(e.both, "Exactly one of is_request and is_response is 1: " .. which)
    end
    local _, own = counted(frame)
    for _, name in ipairs({ "request_length", "response_length" }) do
        if not is_length(frame[name]) then
            items[name]:add_proto_expert_info(e.length, name .. " is " .. frame[name] .. ": a length is 0..4032")
        elseif name ~= own and frame[name] ~= 0 and is_acceptable(frame) then
            items[name]:add_proto_expert_info(e.other_length)
        end
    end
    if frame.sub_command < 1 or frame.sub_command > SUB_COMMAND_LIMIT then
        items.sub_command:add_proto_expert_info(e.sub_command)
    end
    if frame.reserved ~= 0 then
        items.reserved:add_proto_expert_info(e.reserved)
    end
    return items
end

local function show_data(tree, pinfo, range, kind)
    local item = tree:add(f.data, range)
    local bytes = range:raw()
    local nul = bytes:find("\0", 1, true)
    local text = bytes:sub(1, (nul or #bytes + 1) - 1)
    if #text == 0 then
        item:add(f.text, range(0, 1), "")
        return text
    end
    item:add_packet_field(f.text, range(0, #text), ENC_UTF_8 + ENC_NA)
    local is_text = kind == "text" or kind == "integer" or kind == "json"
    if is_text and bytes:sub(-1) ~= "\0" then
        item:add_proto_expert_info(e.nul)
    end
    if kind == "integer" and not text:match("^-?%d+$") then
        item:add_proto_expert_info(e.integer)
    end
    if (kind == "json" or kind == "unknown") and text:match("^%s*[{[]") then
        json:call(range(0, #text):tvb(), pinfo, tree)
    end
    return text
end

local ZEROS = ("\0"):rep(DATA_SIZE)

local function show_padding(tree, tvb, start, stop)
    local bytes = tvb:raw(start, stop - start)
    local size = #bytes
    if bytes == ZEROS:sub(1, size) then -- nearly always; the loop takes longer than all else
        return
    end
    while bytes:byte(size) == 0 do
        size = size - 1
    end
    tree:add(f.padding, tvb(start, size)):add_proto_expert_info(e.padding)
end

-- Text for a label: what a guest or a capture says may be anything.
local function printable(text)
    return (text:gsub("[^\32-\126]", "."))
end

local function show_about(tree, about)
    for _, name in ipairs({ "channel", "refused", "assumed", "why_skipped" }) do
        if about[name] then
            local range, item = about.ranges and about.ranges[name]
            if range then
                item = tree:add_packet_field(f[name], range, ENC_UTF_8 + ENC_NA)
            else
                item = tree:add(f[name], about[name]):set_generated()
            end
            if name == "refused" then
                item:add_proto_expert_info(e.refused)
            end
        end
    end
end

-- `about`: the channel, and what a capture says of a record besides its bytes.
local function show_frame(tvb, offset, pinfo, root, to_host, about)
    local frame = read(tvb, offset)
    local tree = root:add(vchannel, tvb(offset, FRAME_SIZE))
    show_about(tree, about)
    if to_host == nil then
        tree:add_proto_expert_info(e.direction)
    else
        tree:add(f.direction, to_host and "guest>host" or "host>guest"):set_generated()
        frame.asked_by = to_host == (frame.is_request == 1) and "guest" or "host"
    end
    local items = show_header(tree, tvb, offset, frame)

    local name, kind = "", "unknown"
    if frame.asked_by then
        local commands = frame.asked_by == "guest" and HOST_COMMANDS or GUEST_COMMANDS
        local field = frame.asked_by == "guest" and f.host_command or f.guest_command
        local command = commands[frame.command]
        tree:add(field, tvb(offset + 52, 4), frame.command):set_generated()
        if command then
            name, kind = command[1], command[frame.is_request == 1 and 2 or 3]
        else
            name = "(unknown)"
            items.command:add_proto_expert_info(e.command)
        end
    end

    local size = counted(frame)
    local data_at = offset + HEADER_SIZE
    local text = size > 0 and show_data(tree, pinfo, tvb(data_at, size), kind) or ""
    show_padding(tree, tvb, data_at + size, offset + FRAME_SIZE)
    if frame.asked_by and is_acceptable(frame) and not about.refused then
        local found = pair(pinfo, offset, frame, about.channel)
        if found then
            show_pair(tree, pinfo, found)
        end
    end

    local verb = frame.is_response ~= 0 and "answers" or frame.needs_response ~= 0 and "asks" or "tells"
    local shown = printable(text):sub(1, 60)
    local words = ("%s %d %s %s"):format(verb, frame.command, name, shown):gsub("%s+$", "")
    if about.refused or not is_acceptable(frame) then
        words = words .. " [refused]"
    end
    tree:append_text(", " .. words)
    return words
end

local function show_skipped(range, root, to_host, about, what)
    local tree = root:add(vchannel, range)
    local why = about.why_skipped and " (" .. printable(about.why_skipped):sub(1, 60) .. ")" or ""
    local words = ("%d bytes outside any frame%s"):format(range:len(), why)
    tree:append_text(", " .. words)
    show_about(tree, about)
    if to_host ~= nil then
        tree:add(f.direction, to_host and "guest>host" or "host>guest"):set_generated()
    end
    tree:add(f.skipped, range):add_proto_expert_info(what)
    return words
end


-- A stream

local REQUEST_FLAGS = "\1\0\0\0\0\0\0\0"
local RESPONSE_FLAGS = "\0\0\0\0\1\0\0\0"

-- The first offset behind `offset` and up to `last` at which a whole header fulfils `rule`, or nil.
local function find_header(tvb, offset, last, rule)
    last = math.min(last, tvb:len() - HEADER_SIZE)
    if last <= offset then
        return nil
    end
    local bytes = tvb:raw(offset + 1, last - offset - 1 + HEADER_SIZE)
    local first
    for _, flags in ipairs({ REQUEST_FLAGS, RESPONSE_FLAGS }) do
        local at = bytes:find(flags, 33, true)
        while at and offset + at - 32 <= (first or last) do
            if rule(read(tvb, offset + at - 32)) then
                first = offset + at - 32
                break
            end
            at = bytes:find(flags, at + 1, true)
        end
    end
    return first
end

-- Bytes outside any frame that are kept until a frame follows them: else they would be searched again and again.
local HELD_LIMIT = 8 * FRAME_SIZE

-- Whether what begins here follows a frame that convinced. Wireshark may come with the same bytes several times.
local function follows_good(tvb, pinfo, stream)
    if tvb:len() < HEADER_SIZE or is_convincing(read(tvb, 0)) then
        return in_step[stream]
    end
    local key = stream .. tvb:raw(0, HEADER_SIZE)
    if vouched[key] == nil and not pinfo.visited then
        vouched[key] = in_step[stream] or false
    end
    return vouched[key]
end

local function show_stream(tvb, pinfo, root, to_host, about)
    local stream = about.channel .. (to_host and " to host" or " to guest")
    local good = follows_good(tvb, pinfo, stream)
    local shown, start, offset = {}, 0, 0 -- from start to offset: outside any frame, and not yet shown
    local function add_skipped(stop, what)
        if stop > start then
            table.insert(shown, show_skipped(tvb(start, stop - start), root, to_host, about, what))
            start, good = stop, false
        end
    end
    local function wait_for_more()
        if offset - start > HELD_LIMIT then
            add_skipped(offset, e.skipped)
        end
        -- Ask for an exact number of bytes only where a frame begins. Elsewhere a second request would follow in the
        -- same packet. In its second pass, Wireshark 4.0 loses its result, and all that precedes an unfinished frame.
        local left = tvb:len() - start
        local sure = start == offset and left >= HEADER_SIZE and is_convincing(read(tvb, start))
        pinfo.desegment_offset = start
        pinfo.desegment_len = sure and FRAME_SIZE - left or DESEGMENT_ONE_MORE_SEGMENT
    end
    while tvb:len() - offset >= FRAME_SIZE do
        local frame = read(tvb, offset)
        local convincing = is_convincing(frame)
        local vouched_for = start == offset and good and is_acceptable(frame)
            and not find_header(tvb, offset, offset + DATA_SIZE, is_usual)
        if convincing or vouched_for then
            add_skipped(offset, e.skipped)
            table.insert(shown, show_frame(tvb, offset, pinfo, root, to_host, about))
            offset = offset + FRAME_SIZE
            start, good = offset, convincing
        else
            offset = find_header(tvb, offset, offset + DATA_SIZE, is_convincing) or offset + DATA_SIZE
        end
    end
    if start < tvb:len() then
        if pinfo.can_desegment > 0 and tvb:len() == tvb:reported_len() then
            wait_for_more()
        else
            add_skipped(offset, e.skipped)
            add_skipped(tvb:len(), e.cut)
        end
    end
    if not pinfo.visited then
        in_step[stream] = good
    end
    return shown
end

function vchannel.dissector(tvb, pinfo, root)
    local to_host = pinfo.dst_port == pinfo.match_uint -- the port of "Decode As"
    local host, guest = pinfo.dst, pinfo.src
    local host_port, guest_port = pinfo.dst_port, pinfo.src_port
    if not to_host then
        host, guest, host_port, guest_port = guest, host, guest_port, host_port
    end
    local channel = ("%s port %d, %s port %d"):format(tostring(host), host_port, tostring(guest), guest_port)
    local shown = show_stream(tvb, pinfo, root, to_host ~= vchannel.prefs.guest_listens, { channel = channel })
    pinfo.cols.protocol = "vchannel"
    if #shown > 0 then
        pinfo.cols.info = table.concat(shown, "; ")
    end
    return tvb:len()
end


-- A record of a capture: vhostcomm/capture/export.py says what stands before its bytes.

local TAGS = { "channel", "refused", "assumed", "why_skipped" }

local function read_head(tvb)
    local about, offset = { channel = "", ranges = {} }, 0
    while tvb:len() >= offset + 4 do
        local tag, size = tvb(offset, 2):uint(), tvb(offset + 2, 2):uint()
        offset = offset + 4
        if tag == 0 then
            return about, offset
        end
        if tvb:len() < offset + size then
            break
        end
        if TAGS[tag] then
            about[TAGS[tag]] = size > 0 and tvb:raw(offset, size) or ""
            about.ranges[TAGS[tag]] = size > 0 and tvb(offset, size) or nil
        end
        offset = offset + size
    end
    return nil
end

function vchannel_record.dissector(tvb, pinfo, root)
    local about, start = read_head(tvb)
    if not about then
        return 0
    end
    local size = tvb:len() - start
    local to_host -- nil where the packet doesn't say
    if pinfo.p2p_dir == 0 or pinfo.p2p_dir == 1 then
        to_host = pinfo.p2p_dir == 1
    end
    local words = ""
    if size == FRAME_SIZE and not about.why_skipped then
        words = show_frame(tvb, start, pinfo, root, to_host, about)
    elseif size > 0 then
        words = show_skipped(tvb(start), root, to_host, about, about.why_skipped and e.skipped or e.cut)
    end
    pinfo.cols.protocol = "vchannel" -- behind all else: JSON has written its own
    pinfo.cols.info = words
    if to_host ~= nil then
        pinfo.cols.src = to_host and "guest" or "host"
        pinfo.cols.dst = to_host and "host" or "guest"
    end
    return tvb:len()
end

-- Not a port of its own: 12345 is what the tools take by default, and belongs to others too.
DissectorTable.get("tcp.port"):add_for_decode_as(vchannel)
