-- Ansible managed
-- Copyright (c) 2026, The sovereign.dify maintainers
-- GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

-- HAProxy action `lua.read_body`: reads the keys of the body's top level.
--
-- HAProxy's json_query takes the first of two equal keys, Python's json the last: a body with two would be judged by one value and answered by the
-- other. This reader refuses such bodies, and every body that two readers of JSON could take for different objects (comments, a byte order mark,
-- another encoding, NaN, a second value behind the first).
--
-- It sets these variables:
--   txn.body_fault    why the body is refused: trailers, invalid_json, duplicate_key, invalid_model, invalid_n;
--                     not set for a good body
--   txn.body_key      the key that was given twice
--   txn.body_priority whether the top level has the key `priority`
--   txn.answers       number of answers that the body asks for: `n` or `best_of`, times the number of prompts
--   txn.model         the model's name; set last, and only for a good body, so that an error in this program refuses the request

local byte, find, sub = string.byte, string.find, string.sub

-- Python's json gives up at a depth of about 1,000; schemas of tools stay below 50.
local MAX_DEPTH = 200
-- Bounds the time that one body takes. Whole numbers in lists do not count: a client may send 100,000 token ids.
local MAX_VALUES = 30000
-- OpenAI's and vLLM's requests know fewer than 100.
local MAX_KEYS = 1000
-- Bytes of a key of the top level, and of the model's name, which are decoded.
local MAX_NAME = 1000
-- Backslashes and quotation marks behind one, in strings: a body of 16 MiB can hold 8 million, and each costs a step. A text of 4 MiB of code holds 200,000.
local MAX_ESCAPES = 1000000
-- Characters of a number. Python's json gives up at 4,300 digits.
local MAX_NUMBER = 100
-- Bytes of a list of whole numbers that one step skips: HAProxy serves others between steps, never within one.
local STEP = 4096

local SPACE, QUOTE, BACKSLASH, COMMA, COLON = 32, 34, 92, 44, 58
local OPEN_LIST, CLOSE_LIST, OPEN_OBJECT, CLOSE_OBJECT = 91, 93, 123, 125
local CLOSED_BY = {[OPEN_LIST] = CLOSE_LIST, [OPEN_OBJECT] = CLOSE_OBJECT}
local LITERALS = {[116] = "^true", [102] = "^false", [110] = "^null"}
-- Keys whose value is looked at.
local READ = {model = true, n = true, best_of = true, prompt = true}
local ESCAPED = {['"'] = '"', ["\\"] = "\\", ["/"] = "/", b = "\b", f = "\f", n = "\n", r = "\r", t = "\t"}

-- Position of the first byte at or after `at` that is no white space.
local function skip_blanks(body, at)
    if (byte(body, at) or SPACE + 1) > SPACE then
        return at
    end
    local _, last = find(body, "^[ \t\r\n]*", at)
    return last + 1
end

-- Position of the quotation mark that ends the string begun at `start`; nil if there is none, or if it holds more escapes than `budget.escapes`,
-- which is lowered by each. An image in base64 is skipped in one step.
local function end_of_string(body, start, budget)
    local quote = find(body, '"', start + 1, true)
    while quote do
        local before = quote - 1
        while byte(body, before) == BACKSLASH do
            before = before - 1
            budget.escapes = budget.escapes - 1
            if budget.escapes < 0 then
                return nil
            end
        end
        if (quote - before) % 2 == 1 then
            return quote
        end
        quote = find(body, '"', quote + 1, true)
    end
    return nil
end

-- Position of the last byte of the number, or of true, false or null, that begins at `at`; nil if there is none, or if the number is too long.
local function end_of_literal(body, at)
    local pattern = LITERALS[byte(body, at)]
    local _, last
    if pattern then
        _, last = find(body, pattern, at)
    else
        local text = sub(body, at, at + MAX_NUMBER)
        _, last = find(text, "^%-?%d+")
        if last then
            local _, fraction = find(text, "^%.%d+", last + 1)
            last = fraction or last
            local _, exponent = find(text, "^[eE][+-]?%d+", last + 1)
            last = exponent or last
            last = last <= MAX_NUMBER and at + last - 1 or nil
        end
    end
    return last
end

-- Position of the last byte of the value that begins at `at`; nil if it is no JSON, is nested too deeply, or holds more values or escapes than
-- `budget`, which is lowered by each.
local function end_of_value(body, at, budget)
    local closers, depth = {}, 0
    while true do
        budget.values = budget.values - 1
        if budget.values < 0 then
            return nil
        end
        local first = byte(body, at)
        local closer, last = CLOSED_BY[first], nil
        if closer then
            depth = depth + 1
            if depth > MAX_DEPTH then
                return nil
            end
            closers[depth] = closer
            at = skip_blanks(body, at + 1)
            if byte(body, at) == closer then
                depth, last = depth - 1, at
            end
        elseif first == QUOTE then
            last = end_of_string(body, at, budget)
        else
            last = end_of_literal(body, at)
        end
        if not last and not closer then
            return nil
        end
        -- After a value: the end of the list or object that holds it, or a comma.
        while last do
            if depth == 0 then
                return last
            end
            at = skip_blanks(body, last + 1)
            local following = byte(body, at)
            if following == closers[depth] then
                depth, last = depth - 1, at
            elseif following == COMMA then
                at, last = skip_blanks(body, at + 1), nil
            else
                return nil
            end
        end
        if closers[depth] == CLOSE_OBJECT then
            local key_end = byte(body, at) == QUOTE and end_of_string(body, at, budget)
            if not key_end then
                return nil
            end
            at = skip_blanks(body, key_end + 1)
            if byte(body, at) ~= COLON then
                return nil
            end
            at = skip_blanks(body, at + 1)
        else
            -- Whole numbers in a row, except the last one, in few steps: they hold no key and no string.
            while find(body, "^%d", at) do
                local _, numbers = find(sub(body, at, at + STEP), "^[%d, \t\r\n]+,")
                if not numbers then
                    break
                end
                at = skip_blanks(body, at + numbers)
            end
        end
    end
end

-- What the text between two quotation marks stands for; nil if an escape in it is wrong.
local function decode(text)
    local escape = find(text, "\\", 1, true)
    if not escape then
        return text
    end
    local parts, from = {}, 1
    while escape do
        parts[#parts + 1] = sub(text, from, escape - 1)
        local kind = sub(text, escape + 1, escape + 1)
        from = escape + 2
        if kind == "u" then
            local digits = string.match(text, "^%x%x%x%x", from)
            if not digits then
                return nil
            end
            local code = tonumber(digits, 16)
            from = from + 4
            if code >= 0xD800 and code < 0xDC00 then
                local low = string.match(text, "^\\u([dD][c-fC-F]%x%x)", from)
                if low then
                    code = 0x10000 + (code - 0xD800) * 0x400 + tonumber(low, 16) - 0xDC00
                    from = from + 6
                end
            end
            parts[#parts + 1] = utf8.char(code)
        elseif ESCAPED[kind] then
            parts[#parts + 1] = ESCAPED[kind]
        else
            return nil
        end
        escape = find(text, "\\", from, true)
    end
    parts[#parts + 1] = sub(text, from)
    return table.concat(parts)
end

-- Read the top level of a body: a table of all keys, with the text of those values that are looked at; or nil,
-- the fault and the key that it is about.
local function read(body)
    local at = skip_blanks(body, 1)
    if byte(body, at) ~= OPEN_OBJECT then
        return nil, "invalid_json"
    end
    local values, budget, keys = {}, {values = MAX_VALUES, escapes = MAX_ESCAPES}, 0
    at = skip_blanks(body, at + 1)
    local following = byte(body, at) == CLOSE_OBJECT and CLOSE_OBJECT or COMMA
    while following == COMMA do
        local key_end = byte(body, at) == QUOTE and end_of_string(body, at, budget)
        local key = key_end and key_end - at <= MAX_NAME and decode(sub(body, at + 1, key_end - 1))
        keys = keys + 1
        if not key or keys > MAX_KEYS then
            return nil, "invalid_json"
        end
        if values[key] then
            return nil, "duplicate_key", key
        end
        at = skip_blanks(body, key_end + 1)
        if byte(body, at) ~= COLON then
            return nil, "invalid_json"
        end
        at = skip_blanks(body, at + 1)
        local last = end_of_value(body, at, budget)
        if not last then
            return nil, "invalid_json"
        end
        values[key] = READ[key] and sub(body, at, last) or true
        at = skip_blanks(body, last + 1)
        following = byte(body, at)
        if following == COMMA then
            at = skip_blanks(body, at + 1)
        end
    end
    if following ~= CLOSE_OBJECT or skip_blanks(body, at + 1) <= #body then
        return nil, "invalid_json"
    end
    return values
end

-- The number that a value is; 1 where it is missing or null, nil where it is no whole number. vLLM takes "8" and 8.0 for 8, so they are refused.
local function whole_number(text)
    if not text or text == "null" then
        return 1
    end
    return #text <= 9 and find(text, "^%-?%d+$") and tonumber(text) or nil
end

-- How many prompts a value is: a list of token ids is one, a list of texts or of such lists has one for each.
local function count_prompts(text)
    local at = text and byte(text) == OPEN_LIST and skip_blanks(text, 2)
    if not at or (byte(text, at) ~= QUOTE and byte(text, at) ~= OPEN_LIST) then
        return 1
    end
    local count, budget = 0, {values = MAX_VALUES, escapes = MAX_ESCAPES}
    repeat
        count = count + 1
        at = skip_blanks(text, end_of_value(text, at, budget) + 1)
        local more = byte(text, at) == COMMA
        at = skip_blanks(text, at + 1)
    until not more
    return count
end

-- Whether header fields follow the body (HTTP trailers). HAProxy passes them on and lets no rule look at them; its list of the message's blocks shows them.
local function has_trailers(txn)
    -- Only a chunked body ends with such a block.
    if txn.f:internal_htx_blk_type("tail") ~= "HTX_BLK_EOT" then
        return false
    end
    local position, block = 0, ""
    while block ~= "HTX_BLK_EOT" do
        block = txn.f:internal_htx_blk_type(tostring(position))
        if block == "HTX_BLK_TLR" then
            return true
        end
        position = position + 1
    end
    return false
end

local function read_body(txn)
    if has_trailers(txn) then
        txn:set_var("txn.body_fault", "trailers")
        return
    end
    local values, fault, key = read(txn.f:req_body() or "")
    local model
    if values then
        model = values.model
        if not model or model == "null" then
            fault = "invalid_json"
        elseif byte(model) ~= QUOTE then
            fault = "invalid_model"
        elseif #model > MAX_NAME then
            -- With a blank, so that it is nobody's name.
            model = sub(model, 2, 65) .. " "
        else
            model = decode(sub(model, 2, -2))
            fault = not model and "invalid_json" or nil
        end
    end
    local answers
    if not fault then
        local n, best_of = whole_number(values.n), whole_number(values.best_of)
        if n and best_of then
            -- Only completions know prompts.
            answers = math.max(1, n, best_of) * (txn.f:path() == "/v1/completions" and count_prompts(values.prompt) or 1)
        else
            fault = "invalid_n"
        end
    end
    if fault then
        txn:set_var("txn.body_fault", fault)
        if key then
            txn:set_var("txn.body_key", sub(key, 1, 64))
        end
        return
    end
    if values.priority then
        txn:set_var("txn.body_priority", true)
    end
    txn:set_var("txn.answers", answers)
    txn:set_var("txn.model", model)
end

core.register_action("read_body", {"http-req"}, read_body, 0)
