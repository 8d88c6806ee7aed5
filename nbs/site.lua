-- What nbdev leaves to be mended, on the way through Pandoc. tools/site.py does the same for the pages rendered without Quarto.

-- A signature is code: nbdev's link [`name`](https://...) in it becomes `name` again. Exported source is folded under its signature, and told by its name.
function CodeBlock(block)
  block.text = block.text:gsub("%[`([^`%]]+)`%]%(https?://[^)%s]*%)", "`%1`")
  if block.attributes["code-fold"] == "show" then block.attributes["code-fold"] = "true" end
  if block.attributes["code-summary"] == "Exported source" then
    for line in (block.text .. "\n"):gmatch("(.-)\n") do
      local name = line:match("^def ([%w_]+)") or line:match("^class ([%w_]+)")
      if name then block.attributes["code-summary"] = "Exported source: " .. name; break end
    end
  end
  return block
end

-- A picture without alternative text is described by its caption.
function Figure(figure)
  local text = pandoc.utils.stringify(figure.caption.long)
  return figure:walk({
    Image = function(image)
      if text ~= "" and not image.attributes["fig-alt"] and not image.attributes["alt"] then image.attributes["fig-alt"] = text end
      return image
    end
  })
end

-- "(0.90 to 0.95" and "n = 300" stay on one line.
local function reads(x, pattern) return x and x.t == "Str" and x.text:match(pattern) end

function Inlines(list)
  local function keep(i, ...)
    local at = 0
    for _, pattern in ipairs({...}) do
      if not reads(list[i + at], pattern) then return end
      at = at + 2
    end
    for j = i + 1, i + at - 3, 2 do
      if list[j].t ~= "Space" and list[j].t ~= "SoftBreak" then return end
    end
    for j = i + 1, i + at - 3, 2 do list[j] = pandoc.Str("\u{a0}") end
  end
  for i = 1, #list do
    keep(i, "^%(?n$", "^=$", "^%d")
    keep(i, "^%([-−]?%d", "^to$", "^[-−]?%d")
  end
  return list
end
